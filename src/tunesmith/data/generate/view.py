"""A generation as it looks from outside, read from its folder: the same whoever runs it, or none does."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tunesmith.core.errors import Conflict, NotFound
from tunesmith.core.settings import Settings
from tunesmith.core.types import write_json
from tunesmith.data.generate.journal import GenerationError, StoppedBy, is_running, read_events
from tunesmith.data.generate.report import Report, Usage, read_report, usage_of
from tunesmith.data.generate.request import REQUEST_FILE, Caps, GenerateRequest, read_request, require_sound
from tunesmith.data.generate.state import State

Status = Literal["running", "interrupted", "succeeded", "failed", "cancelled"]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` is interrupted where a run has begun, not ended, and no process is at it: it can be resumed."""

    request: GenerateRequest
    status: Status
    stopped_by: StoppedBy | None
    error: GenerationError | None
    num_complete: int
    """Candidates that the teacher has answered or declined."""
    num_planned: int
    """Candidates of all rounds so far; more follow when too many are dropped."""
    eta_s: float | None
    """To the end of what is planned."""
    usage: Usage
    file_id: str | None
    finished_at: int | None
    report: Report | None


def generations_dir(settings: Settings) -> Path:
    return settings.home / "generations"


def find_generation(settings: Settings, generation_id: str) -> Path:
    """Its folder. Raises NotFound."""
    names = {folder.name: folder for folder in list_generations(settings)}
    if generation_id not in names:
        raise NotFound(f"There is no generation {generation_id!r}.", code="generation_not_found", param="id")
    return names[generation_id]


def list_generations(settings: Settings) -> Iterator[Path]:
    """Every complete folder, in no order."""
    return (path.parent for path in generations_dir(settings).glob(f"gen-*/{REQUEST_FILE}"))


def view_generation(folder: Path) -> View:
    was_running = is_running(folder)  # asked first: a run that ends meanwhile shows its end
    state = State.of(read_events(folder))
    request = read_request(folder)
    ended = state.ended
    return View(
        request=request,
        status=ended.status if ended else "running" if was_running else "interrupted",
        stopped_by=ended.stopped_by if ended else None,
        error=ended.error if ended else None,
        num_complete=state.num_complete,
        num_planned=state.num_slots,
        eta_s=state.remaining_s(time.time()) if was_running else None,
        usage=usage_of(state, request),
        file_id=ended.file_id if ended else None,
        finished_at=int(ended.at) if ended else None,
        report=read_report(folder) if ended else None,
    )


def require_resumable(view: View, caps: Caps) -> None:
    """Raises Conflict for one that runs, or has all it wanted; one that a cap has ended goes on under a higher cap."""
    if view.status == "running":
        raise Conflict(
            f"{view.request.id} is running already.", code="generation_running", mend="Wait for it, or cancel it first."
        )
    if view.status == "succeeded" and (view.stopped_by not in ("tokens", "cost") or caps == Caps()):
        mend = "Raise the cap that ended it." if view.stopped_by in ("tokens", "cost") else "Start another one."
        raise Conflict(f"{view.request.id} has ended by {view.stopped_by}.", code="generation_ended", mend=mend)


def change_caps(folder: Path, request: GenerateRequest, caps: Caps) -> GenerateRequest:
    """The request with the caps that are given, also in its folder."""
    old = request.caps
    new = Caps(
        max_tokens=old.max_tokens if caps.max_tokens is None else caps.max_tokens,
        max_cost=old.max_cost if caps.max_cost is None else caps.max_cost,
    )
    changed = msgspec.structs.replace(request, caps=new)
    require_sound(changed)
    write_json(folder / REQUEST_FILE, changed)
    return changed

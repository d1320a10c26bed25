"""A generation as it looks from outside, read from its folder: the same whoever runs it, or none does."""

import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tunesmith.core.errors import Conflict, NotFound, TunesmithError
from tunesmith.core.settings import Settings
from tunesmith.core.types import write_json
from tunesmith.data.generate.journal import (
    GenerationError,
    JournalReader,
    StoppedBy,
    is_running,
    lock_generation,
)
from tunesmith.data.generate.report import Report, Usage, read_report, usage_of
from tunesmith.data.generate.request import REQUEST_FILE, Caps, GenerateRequest, read_request, require_sound
from tunesmith.data.generate.state import State

MAX_LOOKS = 64
"""Generations whose state is remembered; of one with 1,000 answers that is some 300 kB."""

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


def created_at(folder: Path) -> int:
    """When it was asked for, Unix seconds; of a damaged one, when its request was last written."""
    return _request_of(folder)[0].created_at


def expiry_of(folder: Path) -> int | None:
    """When the first of the files it was made from expires, Unix seconds."""
    return _request_of(folder)[0].expires_at


def view_generation(folder: Path) -> View:
    """One look. Who looks again and again uses ``Views``."""
    return Views().of(folder)


class Views:
    """Looks at generations, from any thread. Remembers how far it has read: a journal grows and is not read twice."""

    def __init__(self) -> None:
        self._looks: OrderedDict[Path, _Look] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, folder: Path) -> View:
        was_running = is_running(folder)  # asked first: a run that ends meanwhile shows its end
        with self._lock:
            look = self._looks.pop(folder, None)
            if look is None or look.reader.is_outdated:
                look = _Look(folder)
            look.go_on()
            self._looks[folder] = look
            if len(self._looks) > MAX_LOOKS:
                self._looks.popitem(last=False)
            return look.view(folder, was_running)


class _Look:
    """What one journal has said so far, without its texts."""

    def __init__(self, folder: Path):
        self.reader = JournalReader(folder)
        self.state = State(keeps_texts=False)
        self.damage: TunesmithError | None = None

    def go_on(self) -> None:
        if self.damage is None:
            try:
                self.state.follow(self.reader)
            except Conflict as error:
                self.damage = error

    def view(self, folder: Path, was_running: bool) -> View:
        state = self.state
        request, request_damage = _request_of(folder)
        report, report_damage = _report_of(folder) if state.ended else (None, None)
        damage = self.damage or request_damage or report_damage
        ended = None if damage else state.ended
        return View(
            request=request,
            status="failed" if damage else ended.status if ended else "running" if was_running else "interrupted",
            stopped_by=ended.stopped_by if ended else None,
            error=_shown(damage) if damage else ended.error if ended else None,
            num_complete=state.num_complete,
            num_planned=state.num_slots,
            eta_s=state.remaining_s(time.time()) if was_running else None,
            usage=usage_of(state, request),
            file_id=ended.file_id if ended else None,
            finished_at=int(ended.at) if ended else None,
            report=report if ended else None,
        )


def _shown(damage: TunesmithError) -> GenerationError:
    return GenerationError(code=damage.code, message=str(damage))


def _request_of(folder: Path) -> tuple[GenerateRequest, TunesmithError | None]:
    """The request; where it cannot be read, an empty one with the reason."""
    try:
        return read_request(folder), None
    except Conflict as error:
        written_at = int((folder / REQUEST_FILE).stat().st_mtime)
        empty = GenerateRequest(
            id=folder.name,
            created_at=written_at,
            rows=0,
            max_candidates=0,
            seed=0,
            teacher_model="",
            teacher_url=None,
        )
        return empty, error


def _report_of(folder: Path) -> tuple[Report | None, TunesmithError | None]:
    try:
        return read_report(folder), None
    except Conflict as error:
        return None, error


def delete_generation(folder: Path) -> None:
    """Its request, its copies of seeds and documents, its answers and its report; not the file that it has become.

    Raises Conflict (``generation_running``) while a process is at it, NotFound when it is gone.
    """
    if not (folder / REQUEST_FILE).exists():
        raise NotFound(f"There is no generation {folder.name!r}.", code="generation_not_found", param="id")
    lock = lock_generation(folder)
    try:
        (folder / REQUEST_FILE).unlink(missing_ok=True)  # from here on nobody finds it
        shutil.rmtree(folder)
    finally:
        os.close(lock)


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
    if caps == Caps():
        return request
    new = Caps(
        max_tokens=old.max_tokens if caps.max_tokens is None else caps.max_tokens,
        max_cost=old.max_cost if caps.max_cost is None else caps.max_cost,
    )
    changed = msgspec.structs.replace(request, caps=new)
    require_sound(changed)
    write_json(folder / REQUEST_FILE, changed)
    return changed

"""Follow a job: a bar with its curve on a terminal, plain lines when piped, JSON lines with ``--json``."""

import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import msgspec

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.objects import TERMINAL_STATUSES, Event, EventData, Job

LOOK_EVERY_S = 0.5
EVENTS_IN_A_PAGE = 100


class Display(Protocol):
    """Where a watched job is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def event(self, event: Event) -> None: ...

    def status(self, job: Job) -> None: ...


def watch_job(client: Client, job_id: str, as_json: bool) -> int:
    """Show the job until it ends or is paused; the exit status is 1 when it has failed or was cancelled.

    Ctrl-C only stops watching: the job goes on, and the status is 0.
    """
    try:
        with _display(as_json) as display:
            job = _follow(client, job_id, display)
    except KeyboardInterrupt:
        show.note(f"Stopped watching; the job goes on. Watch it again with: tunesmith jobs watch {job_id}")
        return 0
    if not as_json:
        show.line(_last_word(job))
    return 1 if job.status in ("failed", "cancelled") else 0


def _follow(client: Client, job_id: str, display: Display) -> Job:
    seen: set[str] = set()
    while True:
        # The job is asked first: when it has ended, the events asked for afterwards are all there are.
        job = client.retrieve_job(job_id).value
        for event in new_events(client, job_id, seen):
            display.event(event)
        display.status(job)
        if job.status in TERMINAL_STATUSES or job.status == "paused":
            return job
        time.sleep(LOOK_EVERY_S)


def new_events(client: Client, job_id: str, seen: set[str]) -> list[Event]:
    """Events not in ``seen``, oldest first; they are added to it. Pages back only as far as there are new ones."""
    found = []
    for event in _newest_first(client, job_id):
        if event.id in seen:
            break
        found.append(event)
    seen.update(event.id for event in found)
    return found[::-1]


def _newest_first(client: Client, job_id: str) -> Iterator[Event]:
    after = None
    while True:
        page = client.list_events(job_id, EVENTS_IN_A_PAGE, after).value
        yield from page.data
        if not page.has_more or not page.data:
            return
        after = page.data[-1].id


def _last_word(job: Job) -> str:
    if job.status == "succeeded":
        return f"{job.id} succeeded: {job.fine_tuned_model} ({job.trained_tokens or 0:,} tokens trained)"
    if job.status == "paused":
        return f"{job.id} is paused. Go on with: tunesmith jobs resume {job.id}"
    reason = f": {job.error.message}" if job.error and job.error.message else ""
    return f"{job.id} {job.status}{reason}"


def _display(as_json: bool) -> Display:
    if as_json:
        return JsonLines()
    return Bar() if sys.stdout.isatty() else PlainLines()


def curve(data: EventData) -> str:
    """The figures of one step in words."""
    valid = data.full_valid_loss if data.full_valid_loss is not None else data.valid_loss
    parts = [f"step {data.step}/{data.total_steps}", f"loss {show.number(data.train_loss)}"]
    if valid is not None:
        parts.append(f"validation loss {show.number(valid)}")
    if data.train_mean_token_accuracy is not None:
        parts.append(f"token accuracy {data.train_mean_token_accuracy:.1%}")
    if data.num_tokens and data.step_s:
        parts.append(f"{data.num_tokens / data.step_s:,.0f} tokens/s")
    if data.remaining_s is not None:
        parts.append(f"{show.duration(data.remaining_s)} left")
    return ", ".join(parts)


class _Unmanaged:
    """A display that has nothing to set up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class JsonLines(_Unmanaged):
    """One JSON object a line: each event as it comes, and the job whenever its status changes."""

    def __init__(self) -> None:
        self._last_status = ""

    def event(self, event: Event) -> None:
        self._print(event)

    def status(self, job: Job) -> None:
        if job.status != self._last_status:
            self._last_status = job.status
            self._print(job)

    def _print(self, value: Event | Job) -> None:
        show.line(msgspec.json.encode(value).decode())


class PlainLines(_Unmanaged):
    """One plain line an event."""

    def event(self, event: Event) -> None:
        data = event.data
        words = curve(data) if data is not None and event.type == "metrics" and data.step is not None else event.message
        show.line(f"{show.moment(event.created_at)}  {words}")

    def status(self, job: Job) -> None:
        """The events say it already."""


class Bar:
    """A bar with phase and curve; messages scroll above it."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("[bold]{task.fields[phase]}"), BarColumn(), TextColumn("{task.fields[curve]}"), expand=False
        )
        self._task = self._progress.add_task("job", total=None, phase="waiting", curve="")
        self._valid_loss: float | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def event(self, event: Event) -> None:
        data = event.data or EventData()
        if data.phase:
            self._progress.update(self._task, phase=data.phase)
        if event.type == "metrics" and data.step is not None:
            self._progress.update(
                self._task, total=data.total_steps, completed=data.step, curve=curve(self._with_validation(data))
            )
        elif not data.phase:
            self._progress.console.print(
                f"{show.moment(event.created_at)}  {event.message}", markup=False, highlight=False
            )

    def status(self, job: Job) -> None:
        if job.status != "running":
            self._progress.update(self._task, phase=job.status.replace("_", " "))

    def _with_validation(self, data: EventData) -> EventData:
        """Validation is measured only every few steps: between them the last figure stays in sight."""
        measured = data.full_valid_loss if data.full_valid_loss is not None else data.valid_loss
        self._valid_loss = measured if measured is not None else self._valid_loss
        return msgspec.structs.replace(data, valid_loss=self._valid_loss)

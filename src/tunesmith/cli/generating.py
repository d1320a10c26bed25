"""A generation run by the command line: progress on standard error, Ctrl-C that loses nothing, the rows at the end."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from tunesmith.catalog.embedding import is_embedding_installed
from tunesmith.catalog.models import find_base_model
from tunesmith.cli import show
from tunesmith.cli.client import find_api_key, find_base_url
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings
from tunesmith.data.generate.diagnosis import Doctor
from tunesmith.data.generate.journal import Ended, Journal
from tunesmith.data.generate.judge import judge_with
from tunesmith.data.generate.report import Report, read_report, usage_of
from tunesmith.data.generate.request import Caps, GenerateRequest, Prices, plain, read_request, require_key_text
from tunesmith.data.generate.run import GenerationRun
from tunesmith.data.generate.sources import read_kept_sources
from tunesmith.data.generate.teacher import Teacher
from tunesmith.data.generate.view import change_caps
from tunesmith.metering.prices import load_prices
from tunesmith.serving.engines.embedding import Embedder

FAILED, INTERRUPTED = 1, 130
NO_CAPS = Caps()
LOOK_EVERY_S = 0.5
PLAIN_LINE_EVERY_S = 10.0


def run_generation(settings: Settings, folder: Path, as_json: bool, caps: Caps = NO_CAPS) -> int:
    """Run it to its end, under new caps where some are given; the exit status. Raises Conflict when another process is
    at it: nothing is changed then."""
    with Journal(folder) as journal, Embedder(settings) as embedder:
        request = change_caps(folder, read_request(folder), caps)
        judge = judge_with(Doctor(settings, embedder.embed if is_embedding_installed(settings) else None))
        sources = read_kept_sources(folder)
        run = GenerationRun(folder, request, sources, journal, judge, lambda rows, _: _copy(rows, request))
        if not as_json:
            show.note(f"{request.id}: its state is in {folder}")
        ended = asyncio.run(_drive(settings, run, request))
    return _say_end(folder, request, ended, as_json)


def require_key(request: GenerateRequest) -> str | None:
    """The teacher's key from the variable that was named. Raises InvalidRequest when that is not set."""
    if request.key_variable is None:
        return None
    key = os.environ.get(request.key_variable, "").strip()
    if not key:
        raise InvalidRequest(
            f"{request.key_variable} is not set, and the teacher's key should be in it.",
            param="teacher_key_env",
            mend=f"Run: export {request.key_variable}=...",
        )
    require_key_text(key)
    return key


def find_prices(
    settings: Settings, model: str, teacher_url: str | None, price_in: Decimal | None, price_out: Decimal | None
) -> Prices:
    """Those that are given; else, where the Tunesmith server is the teacher, the prices of this machine's home."""
    if price_in is not None or price_out is not None or teacher_url is not None:
        return Prices(input=price_in or Decimal(0), output=price_out or Decimal(0))
    table = load_prices(settings)
    base = find_base_model(settings, model.split(":")[1] if model.startswith("ft:") else model)
    price = table.price_of(base.id if base else model)
    return Prices(input=price.input_per_million_tokens, output=price.output_per_million_tokens, currency=table.currency)


async def _drive(settings: Settings, run: GenerationRun, request: GenerateRequest) -> Ended | None:
    """None when a second Ctrl-C has cut the calls in flight."""
    key = require_key(request)
    if request.teacher_url is None:
        url, key = find_base_url(settings), key or find_api_key(settings)
    else:
        url = request.teacher_url
    teacher = Teacher(url, request.teacher_model, key, uses_proxies=True)
    async with teacher:
        work = asyncio.create_task(run.run(teacher))
        with _interruptible(run, work), _display() as display:
            while not work.done():
                await asyncio.wait([work], timeout=LOOK_EVERY_S)
                display.show(run, request)
        with suppress(asyncio.CancelledError):
            return work.result()
    return None


@contextmanager
def _interruptible(run: GenerationRun, work: "asyncio.Task[Ended]") -> Iterator[None]:
    """The first Ctrl-C lets the calls in flight finish: they are paid for. The second one does not."""
    loop = asyncio.get_running_loop()
    was_asked = False

    def on_signal() -> None:
        nonlocal was_asked
        if was_asked:
            work.cancel()
            return
        was_asked = True
        show.note("Waiting for the calls in flight; Ctrl-C again cuts them off.")
        run.stop("interrupted")

    loop.add_signal_handler(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _copy(rows: Path, request: GenerateRequest) -> None:
    """The rows where they were asked for, whole or not at all."""
    assert request.out is not None
    out = Path(request.out)
    temporary = out.with_name(out.name + ".part")
    shutil.copyfile(rows, temporary)
    temporary.replace(out)


def _say_end(folder: Path, request: GenerateRequest, ended: Ended | None, as_json: bool) -> int:
    go_on = f"Go on with: tunesmith data resume {request.id}"
    if ended is None or ended.status == "interrupted":
        show.note(f"Interrupted; what was answered is kept. {go_on}")
        return INTERRUPTED
    report = read_report(folder)
    if report is not None:
        _show_report(report, request, as_json)
    if ended.error is not None:
        show.note(f"tunesmith: {ended.error.message} {'' if ended.error.code == 'nothing_kept' else go_on}".rstrip())
        return FAILED
    if ended.stopped_by in ("tokens", "cost"):
        show.note(f"The cap on {ended.stopped_by} ended it. {go_on} --max-{ended.stopped_by} N")
    return 0


def _show_report(report: Report, request: GenerateRequest, as_json: bool) -> None:
    if as_json:
        show.json_object(report)
        return
    show.line(f"{report.num_rows:,} of {report.num_rows_wanted:,} rows written to {request.out}")
    show.line(f"{spent(request, report.usage.total_tokens, report.usage.cost)} in {report.usage.num_calls:,} calls")
    show_drops(report)


def show_drops(report: Report) -> None:
    """What was dropped and why, with a sample of each rule."""
    if report.dropped:
        rows = [(group.rule, str(group.count), group.title, group.samples[0].prompt) for group in report.dropped]
        show.table(("dropped by", "rows", "why", "for instance"), rows)
    for skipped in report.skipped:
        show.note(f"Not checked: {skipped.rule}: {skipped.reason}")


def spent(request: GenerateRequest, num_tokens: int, cost: Decimal) -> str:
    """Tokens, and money where there are prices."""
    return f"{num_tokens:,} tokens" + (f", {money(request, cost)} spent" if request.prices.are_given else "")


def money(request: GenerateRequest, cost: Decimal) -> str:
    """With its currency, where that is known."""
    return f"{plain(cost)} {request.prices.currency or ''}".rstrip()


class _Display(Protocol):
    def show(self, run: GenerationRun, request: GenerateRequest) -> None: ...


@contextmanager
def _display() -> Iterator[_Display]:
    if not sys.stderr.isatty():
        yield _PlainLines()
        return
    bar = _Bar()
    with bar.progress:
        yield bar


def _words(run: GenerationRun, request: GenerateRequest) -> str:
    usage = usage_of(run.state, request)
    left_s = run.state.remaining_s(time.time())
    parts = [spent(request, usage.total_tokens, usage.cost)]
    return ", ".join(parts if left_s is None else [*parts, f"{show.duration(left_s)} left"])


class _PlainLines:
    """A line every few seconds, for logs."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + PLAIN_LINE_EVERY_S

    def show(self, run: GenerationRun, request: GenerateRequest) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s += PLAIN_LINE_EVERY_S
            show.note(f"{run.state.num_complete}/{run.state.num_slots} candidates, {_words(run, request)}")


class _Bar:
    """A bar on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("[bold]candidates"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
        )
        self.progress = Progress(*columns, console=Console(stderr=True), expand=False)
        self._task = self.progress.add_task("candidates", total=None, words="")

    def show(self, run: GenerationRun, request: GenerateRequest) -> None:
        state = run.state
        self.progress.update(
            self._task, total=state.num_slots, completed=state.num_complete, words=_words(run, request)
        )

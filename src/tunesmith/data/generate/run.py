"""One run of a generation: ask what is not answered yet, judge, ask for more where too much was dropped, write.

Candidates are made in rounds. The first has as many slots as rows are wanted; each next one as many more as the share
of good ones so far makes necessary. Rounds follow from the answers alone, so a resumed run takes the same ones.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from tunesmith.core.clock import monotonic_s
from tunesmith.core.errors import TunesmithError
from tunesmith.core.types import write_json
from tunesmith.data.generate.budget import Budget, Tokens
from tunesmith.data.generate.filter import Filtered
from tunesmith.data.generate.journal import (
    Answered,
    Asked,
    Ended,
    EndStatus,
    Event,
    GenerationError,
    Journal,
    Planned,
    Refused,
    Started,
    StoppedBy,
    Unanswered,
    wants_cancel,
)
from tunesmith.data.generate.judge import Judge
from tunesmith.data.generate.plan import Slot, make_plan
from tunesmith.data.generate.questions import (
    Question,
    Step,
    ask_for_answer,
    ask_for_prompt,
    bound_of_slot,
    clean_prompt,
)
from tunesmith.data.generate.report import REPORT_FILE, ROWS_FILE, Report, make_report, write_rows
from tunesmith.data.generate.request import REQUEST_FILE, GenerateRequest
from tunesmith.data.generate.sources import SOURCES_FILE, Sources
from tunesmith.data.generate.state import State
from tunesmith.data.generate.teacher import Declined, Reply, Teacher

LEAST_SHARE = 0.2
"""However many were dropped, a round is not larger than five times what is missing."""

LOOK_EVERY_S = 0.25
"""How soon a stop is noticed."""
STOP_GRACE_S = 20.0
"""What calls in flight get at a stop; they are paid for."""

Deliver = Callable[[Path, Report], str | None]
"""Takes the finished rows; gives the id of the file that they became, if they did."""


def create_generation(folder: Path, request: GenerateRequest, sources: Sources) -> None:
    """Make the folder. Raises InvalidRequest where there is nothing to start from or no room under the caps."""
    first = next(make_plan(request, sources))
    system = sources.system_for(request.system)
    budget = Budget(request.caps, request.prices, State())
    budget.require_room(bound_of_slot(first, system, request.max_answer_tokens))
    folder.mkdir(parents=True, mode=0o700)
    write_json(folder / SOURCES_FILE, sources)
    write_json(folder / REQUEST_FILE, request)


class _PutBack(Exception):
    """A try that may not go out: a cap forbids it, or the run is ending."""


_Work = asyncio.Task[Slot | None]


class GenerationRun:
    """``run`` to the end; ``stop`` from outside lets the calls in flight finish and ends it early."""

    def __init__(
        self,
        folder: Path,
        request: GenerateRequest,
        sources: Sources,
        journal: Journal,
        judge: Judge,
        deliver: Deliver,
    ):
        """Raises Conflict for a damaged generation."""
        self._folder = folder
        self._request = request
        self._sources = sources
        self._journal = journal
        self._judge = judge
        self._deliver = deliver
        self._system = sources.system_for(request.system)
        self._stop_status: EndStatus | None = None
        self._stop_at_s: float | None = None
        self._trouble: BaseException | None = None
        self.state = State.read(folder)
        self._budget = Budget(request.caps, request.prices, self.state)
        self._record(Started(at=time.time()))

    def stop(self, status: EndStatus) -> None:
        """End as ``status`` once the calls in flight are answered, or have taken too long. Any thread may call it."""
        self._stop_at_s = monotonic_s()
        self._stop_status = status

    @property
    def _patience_is_over(self) -> bool:
        return self._stop_at_s is not None and monotonic_s() > self._stop_at_s + STOP_GRACE_S

    @property
    def _is_stopping(self) -> bool:
        return self._stop_status is not None or self._trouble is not None

    async def run(self, teacher: Teacher) -> Ended:
        """Ask, judge, write. Errors of ours end the run as failed; what was answered stays."""
        try:
            ended = await self._run(teacher)
        except TunesmithError as error:
            trouble = GenerationError(code=error.code, message=str(error), param=error.param)
            ended = Ended(at=time.time(), status="failed", error=trouble)
        except asyncio.CancelledError:
            self._record(Ended(at=time.time(), status=self._stop_status or "interrupted"))
            raise
        self._record(ended)
        return ended

    async def _run(self, teacher: Teacher) -> Ended:
        slots = _Slots(self._request, self._sources)
        limit, filtered = 0, Filtered(kept=[], drops=[])
        stopped_by: StoppedBy | None = None
        while stopped_by is None:
            limit = self._next_limit(limit, len(filtered.kept))
            self._record(Planned(num_slots=limit))
            stopped_by = await self._ask_all(teacher, slots.first(limit))
            if self._stop_status is not None:
                return Ended(at=time.time(), status=self._stop_status)
            filtered = await asyncio.to_thread(self._judge, self._folder, limit)
            if len(filtered.kept) >= self._request.rows:
                stopped_by = "rows"
            elif limit == self._request.max_candidates:
                stopped_by = stopped_by or "candidates"
        return await asyncio.to_thread(self._finish, filtered, stopped_by)

    def _next_limit(self, limit: int, num_kept: int) -> int:
        if limit == 0:
            return self._request.rows
        share = max(LEAST_SHARE, num_kept / limit)
        return min(self._request.max_candidates, limit + math.ceil((self._request.rows - num_kept) / share))

    async def _ask_all(self, teacher: Teacher, slots: list[Slot]) -> StoppedBy | None:
        """Complete the slots. Returns the cap that left some incomplete; raises the first error that ends the run, when
        the calls in flight have come back."""
        waiting = deque(slot for slot in slots if not self.state.is_complete(slot.number))
        running: set[_Work] = set()
        try:
            while True:
                self._look_for_wish()
                cap = self._start_some(teacher, waiting, running)
                if not running:
                    return cap
                done, running = await asyncio.wait(running, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                waiting.extendleft(self._unfinished(done))
                if self._patience_is_over:
                    return None
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if self._trouble is not None:
                raise self._trouble

    def _look_for_wish(self) -> None:
        """Whoever cancels need not be in this process."""
        if self._stop_status is None and wants_cancel(self._folder):
            self.stop("cancelled")

    def _start_some(self, teacher: Teacher, waiting: deque[Slot], running: set[_Work]) -> StoppedBy | None:
        """Send slots on their way, as many as may be; the cap that forbids the next one."""
        while waiting and len(running) < self._request.concurrency and not self._is_stopping:
            cap = self._budget.hold(waiting[0].number, self._bound_left(waiting[0]))
            if cap is not None:
                return cap
            running.add(asyncio.create_task(self._complete(teacher, waiting.popleft())))
        return None

    def _unfinished(self, done: set[_Work]) -> list[Slot]:
        """Slots that were put back, to be tried again when there is room."""
        for task in done:
            self._trouble = self._trouble or task.exception()
        return [slot for task in done if not task.exception() and (slot := task.result()) is not None]

    async def _complete(self, teacher: Teacher, slot: Slot) -> Slot | None:
        """Both calls of a slot, or the one that is missing. The slot itself where it has to wait."""
        try:
            if slot.number not in self.state.prompts:
                await self._ask(teacher, slot, "prompt", ask_for_prompt(slot, self._request.seed))
            if not self.state.is_complete(slot.number):
                await self._ask(teacher, slot, "answer", self._answer_question(slot))
        except _PutBack:
            return slot
        finally:
            self._budget.release(slot.number)
        return None

    async def _ask(self, teacher: Teacher, slot: Slot, step: Step, question: Question) -> None:
        """One call, whose every try is written down before it goes out, and what became of it after that."""
        number, most = slot.number, question.bound

        def on_try() -> None:
            if self._is_stopping or self._budget.hold(number, self._bound_left(slot)) is not None:
                raise _PutBack
            self._record(Asked(slot=number, step=step, prompt_tokens=most[0], completion_tokens=most[1]))

        def on_no_answer(is_lost: bool) -> None:
            self._record(Unanswered(slot=number, step=step, at=time.time(), is_lost=is_lost))

        try:
            reply = await teacher.ask(question, on_try, on_no_answer)
        except Declined as declined:
            self._record(_refused(number, step, declined))
        else:
            self._record(_answered(number, step, reply))

    def _bound_left(self, slot: Slot) -> Tokens:
        """About the most that the slot's missing calls can take."""
        if slot.number in self.state.prompts:
            return self._answer_question(slot).bound
        return bound_of_slot(slot, self._system, self._request.max_answer_tokens)

    def _answer_question(self, slot: Slot) -> Question:
        prompt = clean_prompt(self.state.prompts[slot.number].text)
        return ask_for_answer(slot, prompt, self._system, self._request.max_answer_tokens, self._request.seed)

    def _finish(self, filtered: Filtered, stopped_by: StoppedBy) -> Ended:
        report = make_report(self._request, self.state, filtered, stopped_by, self._sources)
        rows = self._folder / ROWS_FILE
        write_rows(rows, filtered.kept[: self._request.rows], self._system)
        write_json(self._folder / REPORT_FILE, report)
        if not filtered.kept:
            return Ended(at=time.time(), status="failed", stopped_by=stopped_by, error=_nothing_kept(report))
        file_id = self._deliver(rows, report)
        return Ended(at=time.time(), status="succeeded", stopped_by=stopped_by, file_id=file_id)

    def _record(self, event: Event) -> None:
        """First on the disk, then in mind."""
        self._journal.append(event)
        self.state.apply(event)


class _Slots:
    """The plan's slots, made as they are needed."""

    def __init__(self, request: GenerateRequest, sources: Sources):
        self._plan = make_plan(request, sources)
        self._made: list[Slot] = []

    def first(self, number: int) -> list[Slot]:
        self._made += islice(self._plan, number - len(self._made))
        return self._made


def _answered(slot: int, step: Step, reply: Reply) -> Answered:
    return Answered(
        slot=slot,
        step=step,
        at=time.time(),
        text=reply.text,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        is_estimated=reply.is_estimated,
    )


def _refused(slot: int, step: Step, declined: Declined) -> Refused:
    return Refused(
        slot=slot,
        step=step,
        at=time.time(),
        rule=declined.rule,
        what=declined.what,
        prompt_tokens=declined.prompt_tokens,
        completion_tokens=declined.completion_tokens,
        is_estimated=declined.is_estimated,
    )


def _nothing_kept(report: Report) -> GenerationError:
    dropped = ", ".join(f"{group.count} {group.rule}" for group in report.dropped) or "none was finished"
    message = f"Of {report.num_candidates} candidates none is good ({dropped}). The report has samples of each."
    return GenerationError(code="nothing_kept", message=message)

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
from tunesmith.data.generate.diagnosis import Doctor
from tunesmith.data.generate.filter import Filtered, filter_candidates
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
    read_events,
)
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
    system = sources.common_system() if request.system is None else request.system
    budget = Budget(request.caps, request.prices, State())
    budget.require_room(bound_of_slot(first, system, request.max_answer_tokens))
    folder.mkdir(parents=True, mode=0o700)
    write_json(folder / SOURCES_FILE, sources)
    write_json(folder / REQUEST_FILE, request)


class GenerationRun:
    """``run`` to the end; ``stop`` from outside lets the calls in flight finish and ends it early."""

    def __init__(
        self,
        folder: Path,
        request: GenerateRequest,
        sources: Sources,
        journal: Journal,
        doctor: Doctor,
        deliver: Deliver,
    ):
        self._folder = folder
        self._request = request
        self._sources = sources
        self._journal = journal
        self._doctor = doctor
        self._deliver = deliver
        self._system = sources.common_system() if request.system is None else request.system
        self._stop_status: EndStatus | None = None
        self._stop_at_s: float | None = None
        self._trouble: BaseException | None = None
        self.state = State.of(read_events(folder))
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
            filtered = await asyncio.to_thread(self._filter, limit)
            if len(filtered.kept) >= self._request.rows:
                stopped_by = "rows"
            elif limit == self._request.max_candidates:
                stopped_by = stopped_by or "candidates"
        return await asyncio.to_thread(self._finish, filtered, stopped_by)

    def _filter(self, limit: int) -> Filtered:
        return filter_candidates(self.state, limit, self._sources.seeds, self._system, self._doctor)

    def _next_limit(self, limit: int, num_kept: int) -> int:
        if limit == 0:
            return self._request.rows
        share = max(LEAST_SHARE, num_kept / limit)
        return min(self._request.max_candidates, limit + math.ceil((self._request.rows - num_kept) / share))

    async def _ask_all(self, teacher: Teacher, slots: list[Slot]) -> StoppedBy | None:
        """Complete the slots. Returns the cap that left some incomplete; raises the first error that ends the run, when
        the calls in flight have come back."""
        waiting = deque(slot for slot in slots if not self.state.is_complete(slot.number))
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                cap = self._start_some(teacher, waiting, running)
                if not running:
                    return cap
                done, running = await asyncio.wait(running, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                self._note_trouble(done)
                if self._patience_is_over:
                    return None
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if self._trouble is not None:
                raise self._trouble

    def _start_some(self, teacher: Teacher, waiting: deque[Slot], running: set[asyncio.Task[None]]) -> StoppedBy | None:
        """Send slots on their way, as many as may be; the cap that forbids the next one."""
        while waiting and len(running) < self._request.concurrency and not self._is_stopping:
            cap = self._budget.hold(waiting[0].number, self._bound_left(waiting[0]))
            if cap is not None:
                return cap
            running.add(asyncio.create_task(self._complete(teacher, waiting.popleft())))
        return None

    def _note_trouble(self, done: set[asyncio.Task[None]]) -> None:
        for task in done:
            self._trouble = self._trouble or task.exception()

    async def _complete(self, teacher: Teacher, slot: Slot) -> None:
        """Both calls of a slot, or the one that is missing."""
        try:
            if slot.number not in self.state.prompts:
                await self._ask(teacher, slot.number, "prompt", ask_for_prompt(slot, self._request.seed))
            if self.state.is_complete(slot.number) or self._is_stopping:
                return
            self._budget.lower(slot.number, self._bound_left(slot))
            await self._ask(teacher, slot.number, "answer", self._answer_question(slot))
        finally:
            self._budget.release(slot.number)

    async def _ask(self, teacher: Teacher, slot: int, step: Step, question: Question) -> None:
        most = question.bound
        self._record(Asked(slot=slot, step=step, prompt_tokens=most[0], completion_tokens=most[1]))
        try:
            reply = await teacher.ask(question)
        except Declined as declined:
            self._record(_refused(slot, step, declined))
        else:
            self._record(_answered(slot, step, reply))

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
        num_timeouts=reply.num_timeouts,
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
    )


def _nothing_kept(report: Report) -> GenerationError:
    dropped = ", ".join(f"{group.count} {group.rule}" for group in report.dropped) or "none was finished"
    message = f"Of {report.num_candidates} candidates none is good ({dropped}). The report has samples of each."
    return GenerationError(code="nothing_kept", message=message)

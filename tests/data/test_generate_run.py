"""Runs against a recorded teacher: caps hold, nothing is asked twice, what is dropped has its reason."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
import pytest

from recorded_teacher import TOPICS, Fault, RecordedTeacher, error_body, recorded_teacher
from tunesmith.core.errors import Conflict, InvalidRequest, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.data.generate.budget import spent_cost, spent_tokens
from tunesmith.data.generate.candidates import Candidate
from tunesmith.data.generate.diagnosis import DROPPING, Doctor
from tunesmith.data.generate.filter import DROP_RULES, check_repetition
from tunesmith.data.generate.journal import (
    JOURNAL_FILE,
    Asked,
    Ended,
    Journal,
    Planned,
    Started,
    ask_to_cancel,
    is_running,
    read_events,
)
from tunesmith.data.generate.judge import judge_with
from tunesmith.data.generate.report import ROWS_FILE, Report, read_report
from tunesmith.data.generate.request import Caps, GenerateRequest, Prices, read_request
from tunesmith.data.generate.run import GenerationRun, create_generation
from tunesmith.data.generate.sources import SeedExample, Sources, read_kept_sources
from tunesmith.data.generate.state import State
from tunesmith.data.generate.teacher import MAX_TRIES, Teacher
from tunesmith.data.generate.view import View, Views, change_caps, delete_generation, require_resumable, view_generation
from tunesmith.data.rules import RULES


@dataclass
class World:
    """One generation, and the teacher it asks."""

    folder: Path
    teacher: RecordedTeacher
    delivered: list[int] = field(default_factory=list)
    transport: httpx.AsyncBaseTransport | None = None
    timeout_s: float = 20.0

    def create(self, sources: Sources | None = None, **changes: object) -> GenerateRequest:
        values: dict[str, object] = {
            "id": self.folder.name,
            "created_at": 0,
            "rows": 4,
            "max_candidates": 24,
            "seed": 3,
            "teacher_model": "m",
            "teacher_url": self.teacher.base_url,
            "topics": TOPICS,
            "concurrency": 1,
            "max_answer_tokens": 160,
        }
        request = GenerateRequest(**{**values, **changes})  # type: ignore[arg-type]
        create_generation(self.folder, request, sources or Sources())
        return request

    def run(self, during: Callable[[GenerationRun, "asyncio.Task[Ended]"], None] | None = None) -> Ended:
        """To its end; ``during`` is called every few milliseconds."""
        with Journal(self.folder) as journal:
            sources = read_kept_sources(self.folder)
            judge = judge_with(Doctor(Settings(home=self.folder.parent), None))
            run = GenerationRun(self.folder, read_request(self.folder), sources, journal, judge, self._deliver)
            return asyncio.run(self._drive(run, during))

    async def _drive(
        self, run: GenerationRun, during: Callable[[GenerationRun, "asyncio.Task[Ended]"], None] | None
    ) -> Ended:
        transport, timeout_s = self.transport, self.timeout_s
        url = self.teacher.base_url
        async with Teacher(url, "m", None, transport=transport, timeout_s=timeout_s, first_wait_s=0.01) as teacher:
            task = asyncio.create_task(run.run(teacher))
            while not task.done():
                if during is not None:
                    during(run, task)
                await asyncio.wait([task], timeout=0.005)
            return task.result()

    def _deliver(self, rows: Path, report: Report) -> str:
        self.delivered.append(report.num_rows)
        return f"file-{len(self.delivered)}"

    @property
    def state(self) -> State:
        return State.of(read_events(self.folder))

    @property
    def view(self) -> View:
        return view_generation(self.folder)

    @property
    def rows(self) -> list[list[dict[str, str]]]:
        lines = (self.folder / ROWS_FILE).read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["messages"] for line in lines]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with recorded_teacher() as teacher:
        yield World(tmp_path / "gen-test", teacher)


def test_a_run_gives_the_rows_and_says_what_it_dropped(world: World) -> None:
    world.create()
    ended = world.run()
    report = read_report(world.folder)
    assert report is not None
    assert (ended.status, ended.stopped_by, ended.file_id) == ("succeeded", "rows", "file-1")
    assert [[message["role"] for message in row] for row in world.rows] == [["user", "assistant"]] * 4
    assert len({row[0]["content"] for row in world.rows}) == 4
    assert report.num_rows == 4
    assert {group.rule for group in report.dropped} >= {"cut_off", "answer_repeats_prompt"}
    dropped = sum(group.count for group in report.dropped)
    assert report.num_candidates == dropped + report.num_rows + report.num_surplus
    assert all(group.title and group.samples and group.samples[0].prompt for group in report.dropped)
    assert report.usage.num_calls == len(world.teacher.bodies)


def test_the_same_answers_give_the_same_rows_and_report(world: World, tmp_path: Path) -> None:
    world.create()
    world.run()
    other = World(tmp_path / "other" / "gen-test", world.teacher)
    other.create()
    other.run()
    assert other.rows == world.rows
    assert read_report(other.folder) == read_report(world.folder)


def test_rows_carry_the_system_prompt_of_the_seeds(world: World) -> None:
    seeds = [SeedExample(prompt=f"Where is {what}?", answer="Here.", system="Be kind.") for what in ("Bern", "Rome")]
    world.create(Sources(seeds=seeds, num_seed_rows=2), rows=2, topics=())
    assert world.run().status == "succeeded"
    assert {row[0]["content"] for row in world.rows} == {"Be kind."}
    assert all(row[0]["role"] == "system" for row in world.rows)


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("max_tokens", [1_500, 2_500, 4_000])
def test_a_cap_on_tokens_is_never_passed(world: World, max_tokens: int, concurrency: int) -> None:
    world.create(rows=20, caps=Caps(max_tokens=max_tokens), concurrency=concurrency)
    ended = world.run()
    assert ended.stopped_by == "tokens"
    assert 0 < spent_tokens(world.state.spending) <= max_tokens
    report = read_report(world.folder)
    assert report is not None
    assert report.num_rows < 20


def test_a_cap_on_money_is_never_passed_and_may_be_raised(world: World) -> None:
    prices = Prices(input=Decimal(1), output=Decimal(4))
    request = world.create(rows=20, caps=Caps(max_cost=Decimal("0.005")), prices=prices)
    assert world.run().stopped_by == "cost"
    first = spent_cost(world.state.spending, prices)
    assert Decimal("0.001") < first <= Decimal("0.005")
    with pytest.raises(Conflict):
        require_resumable(world.view, Caps())
    more = Caps(max_cost=Decimal("0.01"))
    require_resumable(world.view, more)
    change_caps(world.folder, request, more)
    asked = len(world.teacher.bodies)
    assert world.run().stopped_by == "cost"
    assert first < spent_cost(world.state.spending, prices) <= Decimal("0.01")
    assert len(world.teacher.bodies) > asked
    assert max(world.teacher.asked.values()) == 1


def test_a_cap_too_small_for_one_candidate_is_refused_before_anything_is_asked(world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.create(caps=Caps(max_tokens=100))
    assert (caught.value.code, caught.value.param) == ("cap_too_small", "max_tokens")
    assert not world.folder.exists()
    assert world.teacher.bodies == []


def test_a_failed_run_goes_on_where_it_was(world: World) -> None:
    world.create()
    world.teacher.delay_s = 0.01
    refusal = Fault(401, error_body("key revoked"))

    def revoke(run: GenerationRun, _task: object) -> None:
        if run.state.spending.num_calls == 5 and not world.teacher.faults:
            world.teacher.faults.append(refusal)

    ended = world.run(during=revoke)
    world.teacher.faults.clear()
    assert ended.status == "failed"
    assert ended.error is not None
    assert (ended.error.code, ended.error.param) == ("teacher_unauthorized", "teacher.api_key")
    assert world.view.error == ended.error
    answered = +world.teacher.answered
    require_resumable(world.view, Caps())
    assert world.run().status == "succeeded"
    assert len(world.rows) == 4
    assert all(world.teacher.answered[seed] == 1 for seed in answered)


def test_a_cancel_ends_after_the_calls_in_flight(world: World) -> None:
    world.create(concurrency=2)
    world.teacher.delay_s = 0.05

    def cancel(run: GenerationRun, _task: object) -> None:
        if run.state.spending.num_calls >= 3:
            run.stop("cancelled")

    assert world.run(during=cancel).status == "cancelled"
    assert world.view.status == "cancelled"
    assert world.state.spending.num_lost == 0
    assert not world.delivered
    assert world.run().status == "succeeded"
    assert max(world.teacher.asked.values()) == 1


def test_calls_that_were_cut_off_count_as_spent_and_are_asked_again(world: World) -> None:
    world.create(concurrency=3)
    world.teacher.delay_s = 0.3

    def cut(run: GenerationRun, task: "asyncio.Task[Ended]") -> None:
        if len(run.state.in_flight) == len(world.teacher.bodies) == 3:
            task.cancel()

    with pytest.raises(asyncio.CancelledError):
        world.run(during=cut)
    assert world.view.status == "interrupted"
    assert world.view.usage.num_lost_calls == 3
    assert world.view.usage.lost_tokens > 3 * 96
    world.teacher.delay_s = 0.0
    assert world.run().status == "succeeded"
    assert sorted(world.teacher.asked.values())[-3:] == [2, 2, 2]


def test_a_half_written_line_is_cut_off(world: World) -> None:
    world.create()
    world.run()
    path = world.folder / JOURNAL_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    torn = lines[: len(lines) // 2]
    path.write_bytes(b"".join(torn) + lines[len(torn)][:17])
    assert len(list(read_events(world.folder))) == len(torn)
    assert world.run().status == "succeeded"
    assert path.read_bytes().startswith(b"".join(torn) + b'{"type":"started"')


@pytest.mark.parametrize("share", [0.12, 0.35, 0.6, 0.95])
def test_wherever_it_was_killed_the_result_is_the_same(world: World, tmp_path: Path, share: float) -> None:
    world.create()
    world.run()
    lines = (world.folder / JOURNAL_FILE).read_bytes().splitlines(keepends=True)
    other = World(tmp_path / "other" / "gen-test", world.teacher)
    other.create()
    kept = b"".join(lines[: int(share * len(lines))])
    (other.folder / JOURNAL_FILE).write_bytes(kept)
    num_out = kept.count(b'"type":"asked"') - kept.count(b'"type":"answered"')
    assert other.view.status == "interrupted"
    asked = len(world.teacher.bodies)
    assert other.run().status == "succeeded"
    assert other.rows == world.rows
    assert other.view.usage.num_lost_calls == num_out
    assert len(world.teacher.bodies) - asked == asked - kept.count(b'"type":"answered"')


def test_two_runs_of_one_generation_are_refused(world: World) -> None:
    world.create()
    with Journal(world.folder):
        assert is_running(world.folder)
        with pytest.raises(Conflict) as caught:
            Journal(world.folder)
    assert caught.value.code == "generation_running"
    assert not is_running(world.folder)


def test_when_nothing_is_good_it_fails_and_says_why(world: World) -> None:
    world.create(rows=2, max_candidates=3)
    world.teacher.faults.extend([Fault(400, error_body("no", "content_filter"))] * 3)
    ended = world.run()
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "nothing_kept"
    assert "3 teacher_declined" in ended.error.message
    assert not world.delivered
    report = read_report(world.folder)
    assert report is not None
    assert (report.stopped_by, report.num_rows) == ("candidates", 0)


def test_a_message_that_is_a_seed_or_comes_twice_is_dropped() -> None:
    seeds = [SeedExample(prompt="How do I renew a library card that has expired?", answer="At the desk.")]
    prompts = [
        "How do I renew a library card that has expired??",
        "What does a new bicycle chain cost at your workshop?",
        "what does a new bicycle chain cost, at your workshop",
        "Which tomatoes grow well on a balcony in the north?",
    ]
    candidates = [Candidate(slot=n, prompt=prompt, answer="Yes.") for n, prompt in enumerate(prompts)]
    drops = {drop.slot: drop.rule for drop in check_repetition(candidates, seeds)}
    assert drops == {0: "repeats_seed", 2: "repeats_candidate"}


def test_the_doctor_drops_what_it_would_warn_of(tmp_path: Path) -> None:
    seeds = [SeedExample(prompt="What is the code for a red kite?", answer="R-17")]
    answers = {
        "What is the code for a red kite?": "B-99",
        "Can you tell me about the weather?": "As an AI language model, I cannot tell you about the weather.",
        "How do I sharpen a steel knife?": "Hold it at fifteen degrees and draw it over the stone. " * 12,
        "When does the office open on Mondays?": "The office opens at nine on Mondays.",
    }
    pairs = enumerate(answers.items())
    candidates = [Candidate(slot=10 + n, prompt=prompt, answer=answer) for n, (prompt, answer) in pairs]
    drops, skipped = Doctor(Settings(home=tmp_path), None).examine(candidates, seeds, "")
    rules = {drop.slot: drop.rule for drop in drops}
    assert rules[10] == "contradicting_answers"
    assert rules[11] == "speaks_as_an_ai"
    assert rules[12] == "repeats_itself"
    assert 13 not in rules
    assert "a seed row" in next(drop.what for drop in drops if drop.slot == 10)
    assert "over_context" in {skip.rule for skip in skipped}  # no model is installed in this home


def test_rules_that_drop_exist() -> None:
    assert set(RULES) >= DROPPING
    assert not set(DROP_RULES) & set(RULES)


def test_the_eta_counts_what_is_left() -> None:
    state = State(num_slots=10, started_at=100.0)
    assert state.remaining_s(110.0) is None
    state.spending.num_calls = 4
    assert state.remaining_s(110.0) == pytest.approx(50.0)


def test_every_event_is_on_the_disk_before_the_next_step(world: World) -> None:
    """A call goes out only after its line is written: a killed process leaves no call that nobody knows of."""
    world.create(rows=1)

    def compare(_run: GenerationRun, _task: object) -> None:
        num_asked = sum(isinstance(event, Asked) for event in read_events(world.folder))
        assert len(world.teacher.bodies) <= num_asked

    world.teacher.delay_s = 0.02
    assert world.run(during=compare).status == "succeeded"
    assert b"authorization" not in (world.folder / JOURNAL_FILE).read_bytes()
    assert msgspec.json.decode((world.folder / JOURNAL_FILE).read_bytes().splitlines()[0])["type"] == "started"


class SlowTeacher(httpx.AsyncBaseTransport):
    """Takes every call and never answers one."""

    def __init__(self) -> None:
        self.num_calls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.num_calls += 1
        raise httpx.ReadTimeout("too slow")


class SlowToAnswer(httpx.AsyncHTTPTransport):
    """Gives messages, and no answers to them."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if b"Tone: " not in await request.aread():
            raise httpx.ReadTimeout("too slow")
        return await super().handle_async_request(request)


def test_every_try_that_was_sent_is_counted(world: World) -> None:
    world.transport = slow = SlowTeacher()
    world.create()
    ended = world.run()
    assert ended.error is not None
    assert ended.error.code == "teacher_unavailable"
    assert slow.num_calls == world.view.usage.num_lost_calls == MAX_TRIES
    asked = [event for event in read_events(world.folder) if isinstance(event, Asked)]
    assert world.view.usage.total_tokens == sum(one.prompt_tokens + one.completion_tokens for one in asked)


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("max_tokens", [1_300, 2_000])
def test_tries_that_are_lost_never_pass_a_cap(world: World, max_tokens: int, concurrency: int) -> None:
    world.transport = slow = SlowTeacher()
    world.create(caps=Caps(max_tokens=max_tokens), concurrency=concurrency)
    assert world.run().stopped_by == "tokens"
    assert world.view.usage.num_lost_calls == slow.num_calls
    assert 0 < world.view.usage.total_tokens <= max_tokens


def test_a_slot_that_has_to_wait_for_room_keeps_its_message(world: World) -> None:
    """Its answer was lost, and another try no longer fits: the slot is unfinished, and a higher cap completes it."""
    request = world.create(rows=1, caps=Caps(max_tokens=1_300))
    world.transport = SlowToAnswer()
    assert world.run().stopped_by == "tokens"
    assert world.state.half_done == {0}
    assert 0 < world.view.usage.num_lost_calls < MAX_TRIES
    assert world.view.usage.total_tokens <= 1_300
    change_caps(world.folder, request, Caps(max_tokens=100_000))
    world.transport = None
    world.run()
    assert world.state.is_complete(0)


def test_timeouts_before_a_refusal_are_counted(world: World) -> None:
    world.create(rows=1, max_candidates=1)
    world.timeout_s = 0.3
    world.teacher.faults.extend([Fault(504), Fault(503), Fault(400, error_body("no", "content_filter"))])
    assert world.run().status == "failed"
    usage = world.view.usage
    assert (usage.num_lost_calls, usage.num_calls, usage.num_estimated_calls) == (1, 1, 1)
    (first, *_) = [event for event in read_events(world.folder) if isinstance(event, Asked)]
    assert usage.lost_tokens == first.prompt_tokens + first.completion_tokens
    assert usage.prompt_tokens == first.prompt_tokens


def test_a_malformed_answer_is_counted_at_the_most_it_can_have_taken(world: World) -> None:
    world.create(rows=1, max_candidates=1)
    world.teacher.faults.append(Fault(200, b"<html>"))
    world.run()
    usage = world.view.usage
    (asked,) = [event for event in read_events(world.folder) if isinstance(event, Asked)]
    assert (usage.prompt_tokens, usage.completion_tokens) == (asked.prompt_tokens, asked.completion_tokens)


def test_a_refused_key_costs_nothing(world: World) -> None:
    world.create()
    world.teacher.faults.append(Fault(401, error_body("who are you")))
    assert world.run().status == "failed"
    assert world.view.usage.num_lost_calls == world.view.usage.total_tokens == 0


def test_a_cancel_may_come_from_another_process(world: World) -> None:
    world.create()
    world.teacher.delay_s = 0.05

    def cancel(run: GenerationRun, _task: object) -> None:
        if run.state.spending.num_calls == 2:
            ask_to_cancel(world.folder)

    assert world.run(during=cancel).status == "cancelled"
    assert world.run().status == "succeeded"  # an old wish is none


def test_a_full_disk_leaves_no_half_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create()
    real, room = os.write, 60

    def write(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[: min(len(data), 7, room)])
        room -= written
        return written

    with Journal(world.folder) as journal:
        monkeypatch.setattr(os, "write", write)
        journal.append(Started(at=1.0))
        with pytest.raises(Unavailable) as caught:
            journal.append(Planned(num_slots=123_456_789))
        monkeypatch.undo()
        assert caught.value.code == "journal_unwritable"
        journal.append(Planned(num_slots=4))
    assert list(read_events(world.folder)) == [Started(at=1.0), Planned(num_slots=4)]


DAMAGE = [b"no json\n", b"{}\n", b'{"type":"answered"}\n', b'{"type":"asked","slot":\xff}\n']
OUT_OF_ORDER = b'{"type":"refused","slot":9999,"step":"prompt","at":1,"rule":"cut_off","what":""}\n'


@pytest.mark.parametrize("line", [*DAMAGE, OUT_OF_ORDER])
def test_a_damaged_journal_is_shown_as_failed(world: World, line: bytes) -> None:
    world.create(rows=1)
    world.run()
    with (world.folder / JOURNAL_FILE).open("ab") as file:
        file.write(line)
    view = world.view
    assert view.status == "failed"
    assert view.error is not None
    assert view.error.code == "generation_damaged"
    assert world.folder.name in view.error.message
    assert view.usage.num_calls > 0
    with pytest.raises(Conflict) as caught:
        world.run()
    assert caught.value.code == "generation_damaged"


@pytest.mark.parametrize("name", ["request.json", "report.json"])
def test_another_damaged_file_is_shown_too(world: World, name: str) -> None:
    world.create(rows=1)
    world.run()
    (world.folder / name).write_bytes(b"{")
    assert (world.view.status, world.view.request.id) == ("failed", world.folder.name)


def test_a_look_reads_only_what_is_new(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create()
    num_applied = 0
    views, real = Views(), State.apply

    def counted(state: State, event: object) -> None:
        nonlocal num_applied
        num_applied += not state.keeps_texts
        real(state, event)  # type: ignore[arg-type]

    monkeypatch.setattr(State, "apply", counted)
    world.run(during=lambda _run, _task: views.of(world.folder) and None)
    view = views.of(world.folder)
    assert num_applied == len(list(read_events(world.folder)))
    assert view == world.view
    journal = world.folder / JOURNAL_FILE
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:3]))
    assert views.of(world.folder).status == "interrupted"


def test_what_runs_is_not_deleted(world: World) -> None:
    world.create(rows=1)
    with Journal(world.folder), pytest.raises(Conflict) as caught:
        delete_generation(world.folder)
    assert caught.value.code == "generation_running"
    assert world.run().status == "succeeded"
    delete_generation(world.folder)
    assert not world.folder.exists()

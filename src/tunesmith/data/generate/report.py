"""``report.json``: what came of a generation, what it cost, and what was dropped and why."""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import msgspec

from tunesmith.core.errors import Conflict
from tunesmith.data.content.personal import mask
from tunesmith.data.generate.budget import spent_cost, spent_tokens
from tunesmith.data.generate.candidates import Candidate, Drop
from tunesmith.data.generate.diagnosis import chat_line
from tunesmith.data.generate.filter import DROP_RULES, Filtered
from tunesmith.data.generate.journal import StoppedBy
from tunesmith.data.generate.request import GenerateRequest, plain
from tunesmith.data.generate.sources import Sources
from tunesmith.data.generate.state import State
from tunesmith.data.report import Skipped
from tunesmith.data.rules import RULES

REPORT_FILE = "report.json"
ROWS_FILE = "rows.jsonl"
MAX_SAMPLES = 3
_SAMPLE_CHARS = 160


class DropSample(msgspec.Struct, frozen=True, kw_only=True):
    """One dropped candidate; its texts are shortened, and their personal data is masked."""

    slot: int
    what: str
    prompt: str
    answer: str


class DropGroup(msgspec.Struct, frozen=True, kw_only=True):
    """All candidates that one rule has dropped."""

    rule: str
    title: str
    count: int
    samples: list[DropSample]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The teacher's tokens and their price. Lost calls were sent and never answered; they are in ``total_tokens`` and
    ``cost`` at about the most that they can have taken."""

    num_calls: int
    num_lost_calls: int
    num_estimated_calls: int
    """Answers that came without a usage, counted by their length."""
    prompt_tokens: int
    completion_tokens: int
    lost_tokens: int
    total_tokens: int
    cost: Decimal


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The same answers give the same report."""

    version: int = 1
    id: str
    stopped_by: StoppedBy
    """What ended it: the rows that were wanted, the number of candidates, or a cap."""
    num_rows_wanted: int
    num_rows: int
    num_candidates: int
    num_unfinished: int
    """Candidates that a cap left without an answer."""
    num_surplus: int
    """Good candidates beyond the rows that were wanted."""
    dropped: list[DropGroup]
    """The most frequent rule first."""
    skipped: list[Skipped]
    """Checks that did not run, and why."""
    usage: Usage
    teacher_model: str
    seed: int
    num_seed_rows: int
    num_passages: int


def make_report(
    request: GenerateRequest,
    state: State,
    filtered: Filtered,
    stopped_by: StoppedBy,
    sources: Sources,
) -> Report:
    num_rows = min(request.rows, len(filtered.kept))
    return Report(
        id=request.id,
        stopped_by=stopped_by,
        num_rows_wanted=request.rows,
        num_rows=num_rows,
        num_candidates=state.num_complete,
        num_unfinished=len(state.half_done),
        num_surplus=len(filtered.kept) - num_rows,
        dropped=_groups(state, filtered.drops),
        skipped=filtered.skipped,
        usage=usage_of(state, request),
        teacher_model=request.teacher_model,
        seed=request.seed,
        num_seed_rows=sources.num_seed_rows,
        num_passages=len(sources.passages),
    )


def usage_of(state: State, request: GenerateRequest) -> Usage:
    """What was spent so far."""
    spending = state.spending
    return Usage(
        num_calls=spending.num_calls,
        num_lost_calls=spending.num_lost,
        num_estimated_calls=spending.num_estimated,
        prompt_tokens=spending.prompt_tokens,
        completion_tokens=spending.completion_tokens,
        lost_tokens=spending.lost_prompt_tokens + spending.lost_completion_tokens,
        total_tokens=spent_tokens(spending),
        cost=Decimal(plain(spent_cost(spending, request.prices))),
    )


def write_rows(path: Path, candidates: Iterable[Candidate], system: str) -> None:
    """A training file: one chat a line, each under the same system prompt."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.writelines(chat_line(candidate.prompt, candidate.answer, system) for candidate in candidates)
    temporary.replace(path)


def read_report(folder: Path) -> Report | None:
    """Of a generation's folder; None before its first end. Raises Conflict (``generation_damaged``)."""
    path = folder / REPORT_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report) if path.exists() else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Conflict(
            f"{REPORT_FILE} of {folder.name} cannot be understood.",
            code="generation_damaged",
            mend="Restore the file from a backup, or delete the generation.",
        ) from None


def _groups(state: State, drops: Iterable[Drop]) -> list[DropGroup]:
    counts: Counter[str] = Counter()
    samples: dict[str, list[DropSample]] = {}
    for drop in drops:
        counts[drop.rule] += 1
        if counts[drop.rule] <= MAX_SAMPLES:
            samples.setdefault(drop.rule, []).append(_sample(state, drop))
    order = sorted(counts, key=lambda rule: (-counts[rule], rule))
    return [DropGroup(rule=rule, title=title_of(rule), count=counts[rule], samples=samples[rule]) for rule in order]


def title_of(rule: str) -> str:
    """Of this package's rules and of the doctor's."""
    return DROP_RULES[rule] if rule in DROP_RULES else RULES[rule].title


def _sample(state: State, drop: Drop) -> DropSample:
    prompt, answer = state.prompts.get(drop.slot), state.answers.get(drop.slot)
    return DropSample(
        slot=drop.slot,
        what=drop.what,
        prompt=_shown(prompt.text if prompt else ""),
        answer=_shown(answer.text if answer else ""),
    )


def _shown(text: str) -> str:
    """The beginning, personal data masked: what a candidate was dropped for is not kept in its report."""
    text = " ".join(mask(text)[0].split())
    return text if len(text) <= _SAMPLE_CHARS else text[: _SAMPLE_CHARS - 1] + "…"

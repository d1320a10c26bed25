"""Which candidates become rows, and why the others do not.

The checks run in order over all candidates; one that is dropped is not looked at again, and does not make another one
a repetition. A package that screens content adds its check to ``CHECKS``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec
from rensa import RMinHash, RMinHashLSH

from tunesmith.data.generate.questions import clean_answer, clean_prompt
from tunesmith.data.generate.sources import SeedExample
from tunesmith.data.generate.state import State
from tunesmith.data.report import Skipped

DROP_RULES: dict[str, str] = {
    "teacher_declined": "The teacher declined to write it, or its content filter stopped it",
    "malformed_answer": "The teacher's answer was no chat completion",
    "empty_prompt": "The teacher wrote no message",
    "empty_answer": "The teacher gave no answer",
    "cut_off": "The text was cut off at its token limit",
    "repeats_prompt": "The answer only repeats the message",
    "repeats_seed": "The message is that of a seed row, or nearly",
    "repeats_candidate": "The message is that of an earlier candidate, or nearly",
}
"""Rules of this package: id -> what it means. The doctor's rules have their own words."""

NEAR = 0.8
"""Messages that share this much of their words and word pairs (Jaccard) are the same."""
_NUM_HASHES = 128
_NUM_BANDS = 32


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What the teacher made of one slot."""

    slot: int
    prompt: str
    answer: str
    is_cut_off: bool = False


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate that becomes no row."""

    slot: int
    rule: str
    what: str


class Filtered(msgspec.Struct, frozen=True, kw_only=True):
    """Kept ones in the order of their slots."""

    kept: list[Candidate]
    drops: list[Drop]
    skipped: list[Skipped] = []
    """Checks that did not run, and why."""


Check = Callable[[Sequence[Candidate], Sequence[SeedExample]], Iterable[Drop]]


def filter_candidates(state: State, seeds: Sequence[SeedExample]) -> Filtered:
    """Judge every complete candidate. The same answers give the same rows, in whatever order they came."""
    drops = [Drop(slot=slot, rule=refusal.rule, what=refusal.what) for slot, refusal in state.refused.items()]
    kept = list(_candidates(state))
    for check in CHECKS:
        found = {drop.slot: drop for drop in check(kept, seeds)}
        kept = [candidate for candidate in kept if candidate.slot not in found]
        drops += found.values()
    return Filtered(kept=kept, drops=sorted(drops, key=lambda drop: drop.slot))


def _candidates(state: State) -> Iterator[Candidate]:
    for slot in sorted(state.answers):
        prompt, answer = state.prompts[slot], state.answers[slot]
        yield Candidate(
            slot=slot,
            prompt=clean_prompt(prompt.text),
            answer=clean_answer(answer.text),
            is_cut_off=answer.finish_reason == "length",
        )


def check_wholeness(candidates: Sequence[Candidate], _seeds: Sequence[SeedExample]) -> Iterator[Drop]:
    """An answer must be there, whole, and say something of its own."""
    for candidate in candidates:
        if not candidate.answer:
            yield Drop(slot=candidate.slot, rule="empty_answer", what="The answer is empty.")
        elif candidate.is_cut_off:
            yield Drop(slot=candidate.slot, rule="cut_off", what="The answer reached its token limit.")
        elif _plain(candidate.answer) == _plain(candidate.prompt):
            yield Drop(slot=candidate.slot, rule="repeats_prompt", what="The answer is the message again.")


def check_repetition(candidates: Sequence[Candidate], seeds: Sequence[SeedExample]) -> Iterator[Drop]:
    """A message that a seed or an earlier candidate has already, but for a few words."""
    seen = _SeenTexts()
    for number, seed in enumerate(seeds):
        seen.add(-1 - number, seed.prompt)
    for candidate in candidates:
        same = seen.find(candidate.prompt)
        if same is None:
            seen.add(candidate.slot, candidate.prompt)
        elif same < 0:
            yield Drop(slot=candidate.slot, rule="repeats_seed", what="Its message is nearly that of a seed row.")
        else:
            what = f"Its message is nearly that of candidate {same}."
            yield Drop(slot=candidate.slot, rule="repeats_candidate", what=what)


CHECKS: tuple[Check, ...] = (check_wholeness, check_repetition)


class _SeenTexts:
    """Texts by number; finds the first one that a text is near to. Hashes only propose: the sets decide."""

    def __init__(self) -> None:
        self._index = RMinHashLSH(threshold=NEAR, num_perm=_NUM_HASHES, num_bands=_NUM_BANDS)
        self._texts: list[tuple[int, frozenset[str]]] = []

    def add(self, number: int, text: str) -> None:
        shingles = _shingles(text)
        self._index.insert(len(self._texts), _hashed(shingles))
        self._texts.append((number, shingles))

    def find(self, text: str) -> int | None:
        shingles = _shingles(text)
        near = (self._texts[place] for place in sorted(self._index.query(_hashed(shingles))))
        return next((number for number, other in near if _jaccard(other, shingles) >= NEAR), None)


def _hashed(shingles: frozenset[str]) -> RMinHash:
    minhash = RMinHash(num_perm=_NUM_HASHES, seed=0)
    minhash.update(sorted(shingles))
    return minhash


def _shingles(text: str) -> frozenset[str]:
    words = _plain(text).split()
    return frozenset(words) | {f"{first} {second}" for first, second in pairwise(words)}


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / max(1, len(first | second))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\W+", " ", text.casefold()).split())

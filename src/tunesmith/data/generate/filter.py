"""Which candidates become rows, and why the others do not.

The checks run in order, the doctor last; a candidate that is dropped is not looked at again, and does not make another
one a repetition. A package that screens content adds its check to ``CHECKS``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from tunesmith.data.generate.candidates import Candidate, Drop, complete_candidates
from tunesmith.data.generate.diagnosis import Doctor
from tunesmith.data.generate.sources import SeedExample
from tunesmith.data.generate.state import State
from tunesmith.data.report import Skipped
from tunesmith.data.sets.near_duplicates import near_duplicate_groups

DROP_RULES: dict[str, str] = {
    "teacher_declined": "The teacher declined to write it, or its content filter stopped it",
    "malformed_answer": "The teacher's answer was no chat completion",
    "empty_prompt": "The teacher wrote no message",
    "empty_answer": "The teacher gave no answer",
    "cut_off": "The text was cut off at its token limit",
    "repeats_instruction": "The message is our instruction to the teacher",
    "repeats_seed": "The message is that of a seed row, or nearly",
    "repeats_candidate": "The message is that of an earlier candidate, or nearly",
}
"""Rules of this package: id -> what it means. The doctor's rules have their own words."""

_INSTRUCTION = re.compile(r"\bTone: .{1,80}\bLength: |\bWrite (a|exactly one|a new) message\b", re.DOTALL)
"""Words of ``questions.ask_for_prompt``, which a small teacher may say back."""


class Filtered(msgspec.Struct, frozen=True, kw_only=True):
    """Kept ones in the order of their slots."""

    kept: list[Candidate]
    drops: list[Drop]
    skipped: list[Skipped] = []
    """Checks that did not run, or saw only a sample, and why."""


Check = Callable[[Sequence[Candidate], Sequence[SeedExample]], Iterable[Drop]]


def filter_candidates(state: State, limit: int, seeds: Sequence[SeedExample], system: str, doctor: Doctor) -> Filtered:
    """Judge every complete candidate of the first ``limit`` slots: a resumed run has answers of later ones, and must
    judge each round as it was judged. The same answers give the same rows, in whatever order they came."""
    refused = ((slot, refusal) for slot, refusal in state.refused.items() if slot < limit)
    drops = [Drop(slot=slot, rule=refusal.rule, what=refusal.what) for slot, refusal in refused]
    kept = list(complete_candidates(state, limit))
    for check in CHECKS:
        found = list(check(kept, seeds))
        kept, drops = _without(kept, found), drops + found
    found, skipped = doctor.examine(kept, seeds, system)
    kept, drops = _without(kept, found), drops + found
    return Filtered(kept=kept, drops=sorted(drops, key=lambda drop: drop.slot), skipped=skipped)


def _without(candidates: Sequence[Candidate], drops: Iterable[Drop]) -> list[Candidate]:
    slots = {drop.slot for drop in drops}
    return [candidate for candidate in candidates if candidate.slot not in slots]


def check_wholeness(candidates: Sequence[Candidate], _seeds: Sequence[SeedExample]) -> Iterator[Drop]:
    """There must be an answer, whole, to a message of its own."""
    for candidate in candidates:
        if not candidate.answer:
            yield Drop(slot=candidate.slot, rule="empty_answer", what="The answer is empty.")
        elif candidate.is_cut_off:
            yield Drop(slot=candidate.slot, rule="cut_off", what="The answer reached its token limit.")
        elif _INSTRUCTION.search(candidate.prompt):
            yield Drop(slot=candidate.slot, rule="repeats_instruction", what="The message is our own instruction.")


def check_repetition(candidates: Sequence[Candidate], seeds: Sequence[SeedExample]) -> Iterator[Drop]:
    """A message that a seed or an earlier candidate has already, but for a few words: the first of a group stays."""
    texts = [seed.prompt for seed in seeds] + [candidate.prompt for candidate in candidates]
    for first, *others in near_duplicate_groups(texts):
        for place in others:
            if place < len(seeds):
                continue
            slot = candidates[place - len(seeds)].slot
            if first < len(seeds):
                yield Drop(slot=slot, rule="repeats_seed", what="Its message is nearly that of a seed row.")
            else:
                what = f"Its message is nearly that of candidate {candidates[first - len(seeds)].slot}."
                yield Drop(slot=slot, rule="repeats_candidate", what=what)


CHECKS: tuple[Check, ...] = (check_wholeness, check_repetition)

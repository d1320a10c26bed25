"""Candidates, and drops: what the teacher made of a slot, and why it becomes no row."""

from collections.abc import Iterator

import msgspec

from tunesmith.data.generate.questions import clean_answer, clean_prompt
from tunesmith.data.generate.state import State


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What the teacher made of one slot."""

    slot: int
    prompt: str
    answer: str
    is_cut_off: bool = False


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate that becomes no row; ``rule`` is one of ``filter.DROP_RULES`` or of the doctor's."""

    slot: int
    rule: str
    what: str


def complete_candidates(state: State, limit: int) -> Iterator[Candidate]:
    """Those of the first ``limit`` slots, in order."""
    for slot in sorted(slot for slot in state.answers if slot < limit):
        prompt, answer = state.prompts[slot], state.answers[slot]
        yield Candidate(
            slot=slot,
            prompt=clean_prompt(prompt.text),
            answer=clean_answer(answer.text),
            is_cut_off=answer.finish_reason == "length",
        )

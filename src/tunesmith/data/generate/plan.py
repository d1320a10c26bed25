"""The plan: what candidate number n is about, in which tone, how long. The same sources and seed give the same plan.

Each trait is drawn from a shuffled deck that is shuffled anew when it is used up: every topic comes once before one
comes twice, and traits of different decks meet in all ways.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from tunesmith.core.errors import InvalidRequest
from tunesmith.data.generate.documents import Passage
from tunesmith.data.generate.request import GenerateRequest, Length
from tunesmith.data.generate.sources import SeedExample, Sources

T = TypeVar("T")

NUM_EXAMPLES = 3
"""Seeds shown with each call: enough for the manner, few enough to be varied and cheap."""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate to be made. It is about a passage, or a topic, or else what its examples are about."""

    number: int
    tone: str
    length: Length
    passage: Passage | None = None
    topic: str = ""
    examples: list[SeedExample] = []


def make_plan(request: GenerateRequest, sources: Sources) -> Iterator[Slot]:
    """Slots from number 0 on, without end. Raises InvalidRequest when there is nothing to make them from."""
    subjects: list[Passage | str] = [*sources.passages, *request.topics]
    if not subjects and not sources.seeds:
        raise InvalidRequest(
            "There is nothing to start from.",
            param="seeds",
            code="missing_required_parameter",
            mend="Give seed rows, documents or topics.",
        )
    return _slots(request, subjects, sources.seeds)


def _slots(request: GenerateRequest, subjects: Sequence[Passage | str], seeds: Sequence[SeedExample]) -> Iterator[Slot]:
    subject_deck = _Deck(subjects, f"{request.seed}:subjects")
    tones = _Deck(request.tones, f"{request.seed}:tones")
    lengths = _Deck(request.lengths, f"{request.seed}:lengths")
    examples = _Deck(seeds, f"{request.seed}:examples")
    number = 0
    while True:
        subject = subject_deck.draw() if subjects else ""
        yield Slot(
            number=number,
            tone=tones.draw(),
            length=lengths.draw(),
            passage=subject if isinstance(subject, Passage) else None,
            topic=subject if isinstance(subject, str) else "",
            examples=[examples.draw() for _ in range(min(NUM_EXAMPLES, len(seeds)))],
        )
        number += 1


class _Deck(Generic[T]):
    """Cards in a random order; all are drawn before one comes again."""

    def __init__(self, cards: Sequence[T], seed: str):
        self._cards = list(cards)
        self._random = random.Random(seed)  # noqa: S311  (a plan, no secret)
        self._left: list[T] = []

    def draw(self) -> T:
        if not self._left:
            self._left = list(self._cards)
            self._random.shuffle(self._left)
        return self._left.pop()

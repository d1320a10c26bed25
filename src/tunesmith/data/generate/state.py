"""Where a generation stands, read from its journal: what was answered, what was spent, what is still out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tunesmith.data.generate.journal import (
    Answered,
    Asked,
    Ended,
    Event,
    JournalReader,
    Planned,
    Refused,
    Started,
    Unanswered,
)
from tunesmith.data.generate.questions import Step, clean_prompt

Call = tuple[int, Step]


@dataclass
class Spending:
    """Tokens of the teacher. ``lost`` ones may have been billed: tries that were sent and never answered, because the
    teacher was too slow or the process was killed. They are counted at about the most they can have been."""

    num_calls: int = 0
    num_estimated: int = 0
    num_lost: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    lost_prompt_tokens: int = 0
    lost_completion_tokens: int = 0

    def add(self, event: Answered | Refused) -> None:
        self.num_calls += 1
        self.prompt_tokens += event.prompt_tokens
        self.completion_tokens += event.completion_tokens
        self.num_estimated += event.is_estimated

    def lose(self, asked: Asked) -> None:
        self.num_lost += 1
        self.lost_prompt_tokens += asked.prompt_tokens
        self.lost_completion_tokens += asked.completion_tokens


@dataclass(frozen=True)
class Refusal:
    """Why a slot has no answer; ``rule`` is an id of ``filter.DROP_RULES``."""

    rule: str
    what: str


@dataclass
class State:
    """``apply`` every event in order; the one that writes the journal applies what it writes."""

    prompts: dict[int, Answered] = field(default_factory=dict)
    answers: dict[int, Answered] = field(default_factory=dict)
    refused: dict[int, Refusal] = field(default_factory=dict)
    """Slots that will have no answer."""
    in_flight: dict[Call, Asked] = field(default_factory=dict)
    spending: Spending = field(default_factory=Spending)
    num_slots: int = 0
    started_at: float = 0.0
    num_calls_before_start: int = 0
    ended: Ended | None = None
    keeps_texts: bool = True
    """A mere look at how far it is need not hold every answer."""

    @classmethod
    def read(cls, folder: Path) -> "State":
        """Of a generation's folder. Raises Conflict (``generation_damaged``)."""
        state = cls()
        state.follow(JournalReader(folder))
        return state

    @classmethod
    def of(cls, events: Iterable[Event]) -> "State":
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def follow(self, reader: JournalReader) -> None:
        """Apply what is new. Raises Conflict at a line that is no event, or that cannot come after those before it."""
        for event in reader.new_events():
            try:
                self.apply(event)
            except KeyError:
                raise reader.damage() from None

    def apply(self, event: Event) -> None:
        match event:
            case Started():
                self._start(event)
            case Planned():
                self.num_slots = event.num_slots
            case Asked():
                self.in_flight[event.slot, event.step] = event
            case Answered():
                self._settle(event)
                self._take(event)
            case Unanswered():
                asked = self.in_flight.pop((event.slot, event.step))
                if event.is_lost:
                    self.spending.lose(asked)
            case Refused():
                self._settle(event)
                self.refused[event.slot] = Refusal(event.rule, event.what)
            case Ended():
                self._lose_all()
                self.ended = event

    def is_complete(self, slot: int) -> bool:
        return slot in self.answers or slot in self.refused

    @property
    def num_complete(self) -> int:
        return len(self.answers) + len(self.refused)

    @property
    def half_done(self) -> set[int]:
        """Slots that have a message and no answer yet."""
        return self.prompts.keys() - self.answers.keys() - self.refused.keys()

    def remaining_s(self, now_s: float) -> float | None:
        """Estimated time to the end of what is planned, at the pace of this run; None before it has one."""
        num_done = self.spending.num_calls - self.num_calls_before_start
        elapsed_s = now_s - self.started_at
        if self.ended is not None or num_done == 0 or elapsed_s <= 0:
            return None
        num_left = 2 * max(0, self.num_slots - self.num_complete) - len(self.half_done)
        return max(0, num_left) * elapsed_s / num_done

    def _start(self, event: Started) -> None:
        self._lose_all()
        self.started_at = event.at
        self.num_calls_before_start = self.spending.num_calls
        self.ended = None

    def _take(self, event: Answered) -> None:
        kept = event if self.keeps_texts else msgspec.structs.replace(event, text="")
        if event.step == "prompt":
            self.prompts[event.slot] = kept
            self._refuse_half(event)
        elif event.slot not in self.prompts:
            raise KeyError(event.slot)
        else:
            self.answers[event.slot] = kept

    def _refuse_half(self, event: Answered) -> None:
        """An answer to half a message, or to none, need not be paid for."""
        if not clean_prompt(event.text):
            self.refused[event.slot] = Refusal("empty_prompt", "The message is empty.")
        elif event.finish_reason == "length":
            self.refused[event.slot] = Refusal("cut_off", "The message reached its token limit.")

    def _settle(self, event: Answered | Refused) -> None:
        self.in_flight.pop((event.slot, event.step))
        self.spending.add(event)

    def _lose_all(self) -> None:
        for asked in self.in_flight.values():
            self.spending.lose(asked)
        self.in_flight.clear()

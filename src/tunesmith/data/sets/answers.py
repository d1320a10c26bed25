"""Answers of a whole file: the share of refusals, and of preference pairs what tells the preferred one."""

from collections.abc import Iterator

from tunesmith.data.content.answers import is_refusal
from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.report import Skipped
from tunesmith.data.sets.rule import MANY_ROWS, share

_MANY = 0.05
_LEAST_REFUSALS = 3
_NEARLY_ALL = 0.8
_LONGER = 1.2
_MAX_LINES_SHOWN = 5


class Refusals:
    """Answers that begin by refusing; English only."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._num_refusals = 0
        self._lines: list[int] = []

    def add(self, row: RowView) -> None:
        if row.answer_path is None:
            return
        self._num_rows += 1
        if not row.is_call and is_refusal(row.answer):
            self._num_refusals += 1
            if len(self._lines) < _MAX_LINES_SHOWN:
                self._lines.append(row.line)

    def findings(self) -> Iterator[Finding]:
        if self._num_refusals >= max(_LEAST_REFUSALS, _MANY * self._num_rows):
            where = ", ".join(map(str, self._lines))
            what = (
                f"{share(self._num_refusals, self._num_rows)} answers refuse or excuse themselves (lines {where} ...)."
            )
            yield Finding(rule="many_refusals", what=what)

    def skipped(self) -> Iterator[Skipped]:
        return iter(())


class Preferences:
    """A length that gives the preferred answer of nearly all pairs away."""

    def __init__(self) -> None:
        self._num_pairs = 0
        self._num_longer = 0
        self._num_shorter = 0

    def add(self, row: RowView) -> None:
        if row.rejected is None:
            return
        self._num_pairs += 1
        self._num_longer += len(row.answer) > _LONGER * len(row.rejected)
        self._num_shorter += len(row.rejected) > _LONGER * len(row.answer)

    def findings(self) -> Iterator[Finding]:
        for number, word in ((self._num_longer, "longer"), (self._num_shorter, "shorter")):
            if self._num_pairs >= MANY_ROWS and number >= _NEARLY_ALL * self._num_pairs:
                what = f"The preferred answer is much {word} in {share(number, self._num_pairs)} pairs."
                yield Finding(rule="preferred_by_length", what=what)

    def skipped(self) -> Iterator[Skipped]:
        return iter(())

"""How many rows there are, of what kind, how long they are and what they begin with."""

from array import array
from collections import Counter
from collections.abc import Iterator

import numpy as np

from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.report import Skipped
from tunesmith.data.rows import OTHER_METHODS, Kind
from tunesmith.data.sets.rule import share

MIN_EXAMPLES = 10
ADVISED_EXAMPLES = 50
_CLEAR_MAJORITY = 0.8
_LONG_CHARS = 4_000
_TIMES_THE_MEDIAN = 20
_MAX_DISTINCT = 100_000


def size_findings(num_rows: int, *, is_validation: bool = False) -> Iterator[Finding]:
    """Too few rows to train, in OpenAI's words, or fewer than is advised."""
    if num_rows < MIN_EXAMPLES:
        what = "Validation" if is_validation else "Training"
        yield Finding(
            rule="too_few_examples",
            what=f"{what} file has {num_rows} example(s), but must have at least {MIN_EXAMPLES} examples",
        )
    elif num_rows < ADVISED_EXAMPLES and not is_validation:
        yield Finding(rule="few_examples", what=f"The file has {num_rows} rows.")


def kind_findings(kind: Kind | None) -> Iterator[Finding]:
    """Rows that are good and that no job here takes."""
    if kind in OTHER_METHODS:
        what = f"The file holds {OTHER_METHODS[kind]}; supervised training takes conversations."
        yield Finding(rule="kind_not_trainable", what=what)


class Lengths:
    """A row that is many times as long as the others: often a file pasted into it."""

    def __init__(self) -> None:
        self._lines = array("q")
        self._num_chars = array("q")

    def add(self, row: RowView) -> None:
        self._lines.append(row.line)
        self._num_chars.append(len(row.prompt) + len(row.answer))

    def findings(self) -> Iterator[Finding]:
        if not self._num_chars:
            return
        lengths = np.frombuffer(self._num_chars, dtype=np.int64)
        median = float(np.median(lengths))
        for place in np.flatnonzero(lengths > max(_LONG_CHARS, _TIMES_THE_MEDIAN * median)):
            what = f"The row has {lengths[place]:,} characters; the median is {median:,.0f}."
            yield Finding(rule="outsized_row", what=what, line=self._lines[int(place)])

    def skipped(self) -> Iterator[Skipped]:
        return iter(())


class SystemPrompts:
    """One instruction for all rows, or many on purpose; a few that differ from all others are an accident."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._lines = array("q")
        self._keys = array("q")
        self._num_without = 0
        self._loose: dict[int, set[int]] = {}

    def add(self, row: RowView) -> None:
        key = hash(row.system)
        self._num_without += row.system is None
        self._lines.append(row.line)
        self._keys.append(key)
        if key in self._counts or len(self._counts) < _MAX_DISTINCT:
            if key not in self._counts and row.system is not None:
                self._loose.setdefault(hash(" ".join(row.system.casefold().split())), set()).add(key)
            self._counts[key] += 1

    def findings(self) -> Iterator[Finding]:
        num_rows = len(self._lines)
        if not num_rows:
            return
        (most, most_rows), *others = self._counts.most_common()
        if not others:
            return
        if most_rows >= _CLEAR_MAJORITY * num_rows:
            yield from self._outliers(most, most_rows)
        else:
            without = f"; {self._num_without:,} rows have none" if self._num_without else ""
            most_often = f"the most frequent stands in {share(most_rows, num_rows)} rows"
            what = f"There are {len(others) + 1:,} different system prompts; {most_often}"
            yield Finding(rule="many_system_prompts", what=f"{what}{without}.")
            yield from self._variants()

    def skipped(self) -> Iterator[Skipped]:
        return iter(())

    def _outliers(self, most: int, most_rows: int) -> Iterator[Finding]:
        usual = f"{share(most_rows, len(self._lines))} rows have"
        none = hash(None)
        for line, key in zip(self._lines, self._keys, strict=True):
            if key != most:
                what = "This row has no system message" if key == none else "This system prompt differs"
                one = "none" if most == none else "the same one"
                yield Finding(rule="mixed_system_prompts", what=f"{what}; {usual} {one}.", line=line)

    def _variants(self) -> Iterator[Finding]:
        """Prompts that differ in spaces or capitals only: all but the most frequent of each."""
        odd = set()
        for keys in self._loose.values():
            if len(keys) > 1:
                odd |= keys - {max(keys, key=lambda key: self._counts[key])}
        what = "This system prompt differs from that of other rows in spaces or capitals only."
        for line, key in zip(self._lines, self._keys, strict=True):
            if key in odd:
                yield Finding(rule="mixed_system_prompts", what=what, line=line)

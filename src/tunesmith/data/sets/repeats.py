"""Rows and prompts that stand in a file more than once, exactly: duplicates, contradictions, too few prompts.

Five 64-bit numbers a row are kept, no text: 40 MB for a million rows.
"""

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.report import Skipped
from tunesmith.data.sets.rule import MANY_ROWS, share

_SHORT_ANSWER_CHARS = 60
"""A longer answer can be said in many ways; of two short ones that differ, one is wrong."""
_MIN_DISTINCT_PROMPTS = 10
_MIN_DISTINCT_SHARE = 0.25

Lines = NDArray[np.int64]


class Repeats:
    """Exact repetition of rows and prompts."""

    def __init__(self) -> None:
        self._lines = array("q")
        self._rows = array("q")
        self._prompts = array("q")
        self._answers = array("q")
        self._is_short = array("b")
        self._kinds: set[str] = set()

    def add(self, row: RowView) -> None:
        self._lines.append(row.line)
        self._rows.append(row.row_key)
        self._prompts.append(row.prompt_key)
        self._answers.append(hash(_loose(row.answer)))
        self._is_short.append(row.is_call or len(row.answer) <= _SHORT_ANSWER_CHARS)
        self._kinds.add(row.kind)

    def findings(self) -> Iterator[Finding]:
        lines = np.frombuffer(self._lines, dtype=np.int64) if self._lines else np.empty(0, np.int64)
        if len(lines) < 2:
            return
        rows = np.frombuffer(self._rows, dtype=np.int64)
        is_repeat = np.zeros(len(lines), dtype=bool)
        for group in groups_of_equal(rows):
            is_repeat[group[1:]] = True
            for index in group[1:]:
                first = int(lines[group[0]])
                what = f"The same row stands in line {first}."
                yield Finding(rule="duplicate_row", what=what, line=int(lines[index]), other_line=first)
        prompts = np.frombuffer(self._prompts, dtype=np.int64)
        if self._kinds != {"reinforcement"}:
            yield from self._contradictions(lines, prompts, is_repeat)
        yield from _few_prompts(prompts)

    def skipped(self) -> Iterator[Skipped]:
        return iter(())

    def _contradictions(self, lines: Lines, prompts: Lines, is_repeat: NDArray[np.bool_]) -> Iterator[Finding]:
        kept = np.flatnonzero(~is_repeat)
        for group in groups_of_equal(prompts[kept]):
            first, *others = (int(index) for index in kept[group])
            for index in others:
                if self._answers[index] != self._answers[first]:
                    yield self._contradiction(int(lines[index]), int(lines[first]), index, first)

    def _contradiction(self, line: int, first_line: int, index: int, first: int) -> Finding:
        if self._is_short[index] and self._is_short[first]:
            what = f"Line {first_line} gives another answer to the same prompt."
            return Finding(rule="contradicting_answers", what=what, line=line, other_line=first_line)
        what = f"Line {first_line} answers the same prompt in other words."
        return Finding(rule="several_answers", what=what, line=line, other_line=first_line)


def groups_of_equal(keys: Lines) -> Iterator[Lines]:
    """Indices of equal keys, for each key that stands more than once; groups by their first index, as are indices."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) != 0])
    lengths = np.diff(np.r_[starts, len(keys)])
    several = [
        (int(order[start]), start, length)
        for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True)
    ]
    for _, start, length in sorted(several):
        yield order[start : start + length]


def _loose(answer: str) -> str:
    return " ".join(answer.split()).casefold().strip(".!? ")


def _few_prompts(prompts: Lines) -> Iterator[Finding]:
    num_rows, num_distinct = len(prompts), len(np.unique(prompts))
    is_few = num_distinct < _MIN_DISTINCT_PROMPTS <= num_rows
    if is_few or (num_rows >= MANY_ROWS and num_distinct < _MIN_DISTINCT_SHARE * num_rows):
        what = f"{share(num_distinct, num_rows)} prompts are different from one another."
        yield Finding(rule="few_distinct_prompts", what=what)

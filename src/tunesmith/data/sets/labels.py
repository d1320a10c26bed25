"""Answers that are labels: their numbers, their balance, their spelling."""

from collections import Counter
from collections.abc import Iterator

from tunesmith.data.content.personal import mask
from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.report import LabelCount, Skipped
from tunesmith.data.sets.rule import MANY_ROWS, share

_MAX_LABEL_CHARS = 80
_MAX_LABELS = 500
_LEAST_ROWS_A_LABEL = 3
"""On average: fewer repetitions are chance."""
_DOMINATES = 0.8
_TIMES_THE_MEDIAN = 10
_RARE_ROWS = 2
_MAX_LINES_SHOWN = 5


def label_of(row: RowView) -> str:
    """The answer as a label: labels are shown, so its personal data is masked."""
    return mask(row.answer.strip())[0]


class Labels:
    """Counts answers for as long as they may be labels: short, on one line, few and repeated."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lines: dict[str, list[int]] = {}
        self._num_rows = 0
        self._is_possible = True

    @property
    def is_possible(self) -> bool:
        return self._is_possible

    def add(self, row: RowView) -> None:
        self._num_rows += 1
        if not self._is_possible:
            return
        answer = label_of(row)
        if not answer or row.is_call or "\n" in answer or len(answer) > _MAX_LABEL_CHARS:
            self._give_up()
            return
        self._counts[answer] += 1
        lines = self._lines.setdefault(answer, [])
        if len(lines) < _MAX_LINES_SHOWN:
            lines.append(row.line)
        if len(self._counts) > _MAX_LABELS:
            self._give_up()

    def counts(self) -> list[LabelCount] | None:
        """The labels, most frequent first; None when the answers are no labels."""
        if not self.are_labels():
            return None
        order = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return [LabelCount(answer=answer, num_rows=number) for answer, number in order]

    def are_labels(self) -> bool:
        return self._is_possible and self._num_rows >= max(2, _LEAST_ROWS_A_LABEL * len(self._counts))

    def findings(self) -> Iterator[Finding]:
        if not self.are_labels() or self._num_rows < MANY_ROWS:
            return
        if len(self._counts) == 1:
            yield Finding(rule="one_answer", what=f"All {self._num_rows:,} answers are the same.")
            return
        yield from self._imbalance()
        yield from self._rare()
        yield from self._variants()

    def skipped(self) -> Iterator[Skipped]:
        return iter(())

    def _imbalance(self) -> Iterator[Finding]:
        """One label has most rows, or many times what is usual."""
        (most, number), *_ = self._counts.most_common()
        median = sorted(self._counts.values())[len(self._counts) // 2]
        if number >= _DOMINATES * self._num_rows or (len(self._counts) > 2 and number > _TIMES_THE_MEDIAN * median):
            what = (
                f"{most!r} is the answer in {share(number, self._num_rows)} rows; the median of the labels is {median}."
            )
            yield Finding(rule="label_imbalance", what=what)

    def _rare(self) -> Iterator[Finding]:
        for label, number in sorted(self._counts.items()):
            if number <= _RARE_ROWS:
                what = f"{label!r} is the answer in {number} row{'s' * (number > 1)} only."
                yield Finding(rule="rare_label", what=what, line=self._lines[label][0])

    def _variants(self) -> Iterator[Finding]:
        """Labels that differ in capitals, spaces and marks only: each but the most frequent of its kind."""
        alike: dict[str, list[str]] = {}
        for label, _ in self._counts.most_common():
            plain = "".join(filter(str.isalnum, label.casefold()))
            if plain:
                alike.setdefault(plain, []).append(label)
        for usual, *others in alike.values():
            for label in others:
                what = f"{label!r} ({self._counts[label]} rows) and {usual!r} ({self._counts[usual]} rows)."
                yield Finding(
                    rule="label_variants", what=what, line=self._lines[label][0], other_line=self._lines[usual][0]
                )

    def _give_up(self) -> None:
        self._is_possible = False
        self._counts.clear()
        self._lines.clear()

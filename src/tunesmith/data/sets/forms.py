"""The form that most answers share, and the few that have another one.

A form is a set of plain features: marks such as << or ####, JSON, one line, the mark at the end. A feature that nearly
all answers have is a form; the answers without it are shown. No feature is known to belong to a data set.
"""

import re
from array import array
from collections.abc import Iterator

from tunesmith.data.content.answers import is_json
from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.report import Skipped
from tunesmith.data.sets.rule import MANY_ROWS, share

_NEARLY_ALL = 0.95
_MOST_CHARS = 20_000
_MARKS = re.compile(r"([^\w\s.,])\1+")
_ODD_MARKS = re.compile(r"<<|>>|\{\{|\}\}|\[\[|\]\]|@@|%%|\^\^|~~")
_ODD_SHARE = 0.5
_MAX_FEATURES = 200


class Forms:
    """Counts features; keeps the lines that lack one only for features that nearly all answers have so far."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._counts: dict[str, int] = {}
        self._missing: dict[str, array[int]] = {}
        self._early = array("q")

    def add(self, row: RowView) -> None:
        if row.is_call or not row.answer:
            return
        self._num_rows += 1
        features = _features(row.answer)
        for feature in sorted(features):
            if feature in self._counts:
                self._counts[feature] += 1
            elif len(self._counts) < _MAX_FEATURES:
                self._begin(feature)
        for feature in [feature for feature in self._missing if feature not in features]:
            self._note_missing(feature, row.line)
        if self._num_rows <= MANY_ROWS:
            self._early.append(row.line)

    def _begin(self, feature: str) -> None:
        """The rows before lack it; a feature that comes later than these can no longer be nearly everywhere soon."""
        self._counts[feature] = 1
        if self._num_rows <= MANY_ROWS:
            self._missing[feature] = array("q", self._early)

    def _note_missing(self, feature: str, line: int) -> None:
        missing = self._missing[feature]
        missing.append(line)
        if len(missing) > MANY_ROWS + 2 * (1 - _NEARLY_ALL) * self._num_rows:
            del self._missing[feature]

    def findings(self) -> Iterator[Finding]:
        if self._num_rows < MANY_ROWS:
            return
        yield from self._outliers()
        yield from self._odd_marks()

    def _outliers(self) -> Iterator[Finding]:
        """One finding a line, with all that it lacks."""
        lacking: dict[int, list[str]] = {}
        for feature in sorted(self._missing):
            if _NEARLY_ALL * self._num_rows <= self._counts[feature] < self._num_rows:
                for line in self._missing[feature]:
                    lacking.setdefault(line, []).append(feature)
        for line, features in sorted(lacking.items()):
            rule = "answer_not_json" if "json" in features else "inconsistent_form"
            usual = share(min(self._counts[feature] for feature in features), self._num_rows)
            what = f"The answer {' and '.join(map(_lack, features))}; {usual} answers do."
            yield Finding(rule=rule, what=what, line=line)

    def _odd_marks(self) -> Iterator[Finding]:
        marks: dict[int, list[str]] = {}
        for feature, number in sorted(self._counts.items()):
            if number >= _ODD_SHARE * self._num_rows and feature.startswith("mark ") and _ODD_MARKS.search(feature):
                marks.setdefault(number, []).append(repr(feature[5:]))
        for number, shown in marks.items():
            what = f"{' and '.join(shown)} in {share(number, self._num_rows)} answers."
            yield Finding(rule="recurring_mark", what=what)

    def skipped(self) -> Iterator[Skipped]:
        return iter(())


def _lack(feature: str) -> str:
    kind, _, mark = feature.partition(" ")
    if kind == "mark":
        return f"does not contain {mark!r}"
    if kind == "end":
        return f"does not end with {mark!r}"
    return {"json": "is not JSON", "line": "is not on one line"}[kind]


def _features(answer: str) -> set[str]:
    text = answer[:_MOST_CHARS].strip()
    found = {f"mark {match.group(1) * 2}" for match in _MARKS.finditer(text)}
    if "\n" not in text:
        found.add("line")
    if not text[-1:].isalnum():
        found.add(f"end {text[-1:]}")
    if is_json(text):
        found = {"json"}
    return found

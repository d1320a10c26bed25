"""Rows that say almost what another row says, and prompts of the validation file that are in the training file.

The texts of up to ``MAX_ROWS`` rows are kept, cut to ``MAX_CHARS``: some 150 MB at most.
"""

from array import array
from collections.abc import Iterator, Sequence

from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.read import Progress
from tunesmith.data.report import Skipped
from tunesmith.data.sets.near_duplicates import (
    THRESHOLD,
    jaccard,
    near_duplicate_groups,
    near_duplicate_pairs,
    without_instructions,
)

MAX_ROWS = 100_000
MAX_CHARS = 2_000
MAX_KEPT_CHARS = 50_000_000
_MAX_COMPARED = 50


class NearRows:
    """A row is almost another one when its prompt is, under the same system prompt, and its answer is."""

    def __init__(self, progress: Progress | None = None) -> None:
        """``progress`` is told how far the comparison is."""
        self._progress = progress
        self.lines = array("q")
        self.keys = array("q")
        """Of the prompts of all rows, exact."""
        self.prompts: list[str] = []
        self.answers: list[str] = []
        self._systems = array("q")
        self._row_keys = array("q")
        self._num_chars = 0

    def add(self, row: RowView) -> None:
        self.lines.append(row.line)
        self.keys.append(row.prompt_key)
        if self.is_full:
            return
        self.prompts.append(row.prompt[:MAX_CHARS])
        self.answers.append(row.answer[:MAX_CHARS])
        self._systems.append(hash(row.system))
        self._row_keys.append(row.row_key)
        self._num_chars += len(self.prompts[-1]) + len(self.answers[-1])

    @property
    def is_full(self) -> bool:
        return len(self.prompts) >= MAX_ROWS or self._num_chars >= MAX_KEPT_CHARS

    def findings(self) -> Iterator[Finding]:
        for index, earlier in near_duplicate_pairs(self.prompts, progress=self._progress):
            if self._is_other_row(index, earlier) and _says_the_same(self.answers[index], self.answers[earlier]):
                line = self.lines[earlier]
                what = f"Line {line} says almost the same, prompt and answer."
                yield Finding(rule="near_duplicate_row", what=what, line=self.lines[index], other_line=line)

    def skipped(self) -> Iterator[Skipped]:
        if self.is_full:
            reason = f"Near-duplicates were looked for among the first {len(self.prompts):,} rows."
            yield Skipped(rule="near_duplicate_row", reason=reason)

    def _is_other_row(self, index: int, earlier: int) -> bool:
        """Equal rows are duplicates, which another rule reports; other systems ask for other answers."""
        return self._row_keys[index] != self._row_keys[earlier] and self._systems[index] == self._systems[earlier]


def _says_the_same(one: str, other: str) -> bool:
    return _numbers(one) == _numbers(other) and jaccard(one, other) >= THRESHOLD


def _numbers(text: str) -> str:
    """All digits of a text: answers that differ in a number are different, however alike they are."""
    return "".join(filter(str.isdigit, text))


def leak_findings(training: NearRows, validation: NearRows) -> Iterator[Finding]:
    """Prompts of the validation file that stand in the training file, exactly or almost. ``line`` is the training
    file's, ``other_line`` the validation file's."""
    first: dict[int, int] = {}
    for line, key in zip(training.lines, training.keys, strict=True):
        first.setdefault(key, line)
    exact = set()
    for line, key in zip(validation.lines, validation.keys, strict=True):
        if key in first:
            exact.add(line)
            what = f"The same prompt is in line {line} of the validation file."
            yield Finding(rule="validation_overlap", what=what, line=first[key], other_line=line)
    yield from _near_leaks(training, validation, exact)


def _near_leaks(training: NearRows, validation: NearRows, exact: set[int]) -> Iterator[Finding]:
    num_training = len(training.prompts)
    prompts = training.prompts + validation.prompts
    compared = without_instructions(prompts)
    for group in near_duplicate_groups(prompts):
        trained = [index for index in group if index < num_training]
        for index in group[len(trained) :]:
            line = validation.lines[index - num_training]
            twin = _nearest(index, trained, prompts, compared)
            if line not in exact and twin is not None:
                what = f"Line {line} of the validation file asks almost the same."
                yield Finding(rule="validation_near_overlap", what=what, line=training.lines[twin], other_line=line)


def _nearest(index: int, among: list[int], prompts: Sequence[str], compared: Sequence[str]) -> int | None:
    """The first of the group that is truly near: groups are chains, whose ends may be far apart."""
    for other in among[:_MAX_COMPARED]:
        if prompts[other] == prompts[index] or jaccard(compared[other], compared[index]) >= THRESHOLD:
            return other
    return None

"""Splitting a data set into two new files: one to train on, one held out for validation.

Rows keep their bytes and their order. Answers that are labels give the same share each; rows that ask nearly the same
stay on one side, or validation would ask what training has told.
"""

import os
import tempfile
from array import array
from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from tunesmith.core.errors import DataError, InvalidRequest
from tunesmith.data.content.turns import RowView, view
from tunesmith.data.read import BLANK, Progress, each_line, open_data_file
from tunesmith.data.rules import RULES
from tunesmith.data.scan import scan
from tunesmith.data.sets.labels import Labels, label_of
from tunesmith.data.sets.near_duplicates import near_duplicate_groups
from tunesmith.data.split import num_held_out_rows
from tunesmith.data.split_plan import plan_split
from tunesmith.data.writing import writing

DEFAULT_SHARE = 0.2
MAX_COMPARED_CHARS = 128 * 2**20
"""Beyond this many characters of prompts only equal ones are kept together, or memory would not suffice."""

AlikeBy = Literal["prompt", "row", "equal_prompt"]


class LabelSplit(msgspec.Struct, frozen=True, kw_only=True):
    """Rows with one answer, on each side."""

    answer: str
    num_train: int
    num_valid: int


class SplitSummary(msgspec.Struct, frozen=True, kw_only=True):
    num_rows: int
    num_train: int
    num_valid: int
    num_valid_asked: int
    """What the share or count came to; fewer are held out when alike rows would have to be parted."""
    seed: int
    alike_by: AlikeBy
    """What was compared: prompts; whole rows where most prompts are the same; prompts for equality in a huge file."""
    num_alike: int
    """Rows that have a near-duplicate in the file: each is on the side of its like."""
    labels: list[LabelSplit] | None
    """The answers when they are labels, most frequent first."""


def split_file(
    path: Path,
    out_train: Path,
    out_valid: Path,
    *,
    share: float | None = None,
    count: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SplitSummary:
    """Write the rows of ``path`` to two files, which appear complete or not at all; the same for the same seed.

    ``share`` (default 0.2) or ``count`` says how many rows are held out. Raises InvalidRequest for a wish that cannot
    be fulfilled, DataError for a file with a bad row, by its line.
    """
    _require_sense(share, count, seed)
    if out_train.resolve() == out_valid.resolve():
        raise _refusal("Both sides have the same path.", "valid", "Give each a path of its own.")
    rows = _read(path, progress)
    num_valid = _num_valid(len(rows.lines), share, count)
    alike_by, groups = _groups(rows)
    chosen = plan_split(groups, rows.answer_keys if rows.labels.are_labels() else None, num_valid, seed)
    if not chosen:
        raise _cannot_part(groups, num_valid)
    _write(path, out_train, out_valid, {rows.lines[index] for index in chosen})
    sizes = Counter(groups)
    return SplitSummary(
        num_rows=len(groups),
        num_train=len(groups) - len(chosen),
        num_valid=len(chosen),
        num_valid_asked=num_valid,
        seed=seed,
        alike_by=alike_by,
        num_alike=sum(size for size in sizes.values() if size > 1),
        labels=_label_splits(rows, chosen),
    )


class _Rows:
    """What a split looks at. Texts are let go once they are too many to be compared."""

    def __init__(self) -> None:
        self.lines = array("q")
        self.prompt_keys = array("q")
        self.answer_keys = array("q")
        self.labels = Labels()
        self.prompts: list[str] = []
        self.wholes: list[tuple[str, str, str]] = []
        self._num_chars = 0

    def add(self, line: int, row: RowView) -> None:
        self.lines.append(line)
        self.prompt_keys.append(row.prompt_key)
        self.labels.add(row)
        self.answer_keys.append(hash(label_of(row)) if self.labels.is_possible else 0)
        self._num_chars += len(row.prompt) + len(row.answer) + len(row.system or "")
        if self.are_comparable:
            self.prompts.append(row.prompt)
            self.wholes.append((row.system or "", row.prompt, row.answer))
        else:
            self.prompts, self.wholes = [], []

    @property
    def are_comparable(self) -> bool:
        return self._num_chars <= MAX_COMPARED_CHARS


def _require_sense(share: float | None, count: int | None, seed: int) -> None:
    if share is not None and count is not None:
        raise InvalidRequest(
            "share and count were both given.",
            param="count",
            code="invalid_parameter_combination",
            mend="Give one of them.",
        )
    if share is not None and not 0 < share < 1:
        raise _refusal(f"share is {share:g}.", "share", "Give a number between 0 and 1, for instance 0.2.")
    if count is not None and count < 1:
        raise _refusal(f"count is {count}.", "count", "Hold out at least one row.")
    if not 0 <= seed < 2**32:
        raise _refusal(f"seed is {seed}.", "seed", "Give a whole number from 0 to 4,294,967,295.")


def _refusal(message: str, param: str, mend: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_value", mend=mend)


def _read(path: Path, progress: Progress | None) -> _Rows:
    rows = _Rows()
    for batch in scan(path, progress=progress):
        for finding in batch.findings:
            if RULES[finding.rule].severity == "error":
                mend = "Correct it, or drop rows with errors first: the fix drop_rows of a mend."
                raise DataError(finding.what, line=finding.line, json_path=finding.json_path, param=None, mend=mend)
        for line, row in zip(batch.numbers, batch.rows, strict=True):
            assert row is not None, "a line without a row has an error"
            rows.add(line, view(row, line))
    return rows


def _num_valid(num_rows: int, share: float | None, count: int | None) -> int:
    if num_rows < 2:
        raise _refusal(f"The file has {num_rows} row(s), which cannot be split.", "file", "Give at least two rows.")
    if count is not None and count >= num_rows:
        what = f"count is {count:,}, but the file has {num_rows:,} rows, and some must be left to train on."
        raise _refusal(what, "count", f"Hold out at most {num_rows - 1:,}.")
    return count if count is not None else num_held_out_rows(num_rows, DEFAULT_SHARE if share is None else share)


def _groups(rows: _Rows) -> tuple[AlikeBy, list[int]]:
    """What was compared, and for each row the number of its group of alike rows."""
    if not rows.are_comparable:
        _, groups = np.unique(np.frombuffer(rows.prompt_keys, np.int64), return_inverse=True)
        return "equal_prompt", groups.tolist()
    by_prompt = _numbered(near_duplicate_groups(rows.prompts), len(rows.lines))
    if max(Counter(by_prompt).values()) <= len(by_prompt) / 2:
        return "prompt", by_prompt
    return "row", _numbered(near_duplicate_groups(["\n".join(whole) for whole in rows.wholes]), len(rows.lines))


def _numbered(groups: list[list[int]], num_rows: int) -> list[int]:
    """For each row its group, which is its first row."""
    first = list(range(num_rows))
    for group in groups:
        for row in group:
            first[row] = group[0]
    return first


def _cannot_part(groups: list[int], num_valid: int) -> InvalidRequest:
    smallest = min(Counter(groups).values())
    if smallest == len(groups):
        return _refusal("All rows are nearly the same.", "file", "Remove the duplicates, or bring other rows.")
    return _refusal(
        f"Rows that are nearly the same stay together, and the smallest group has {smallest:,} rows: "
        f"{num_valid:,} cannot be held out.",
        "count",
        f"Hold out at least {smallest:,}, or remove duplicates first.",
    )


def _label_splits(rows: _Rows, chosen: set[int]) -> list[LabelSplit] | None:
    counts = rows.labels.counts()
    held_out = Counter(rows.answer_keys[index] for index in chosen)
    if counts is None:
        return None
    return [
        LabelSplit(answer=label.answer, num_train=label.num_rows - number, num_valid=number)
        for label in counts
        for number in (held_out[hash(label.answer)],)
    ]


def _write(path: Path, out_train: Path, out_valid: Path, held_out: set[int]) -> None:
    with (
        writing(path, out_train),
        tempfile.TemporaryDirectory(dir=out_train.parent, prefix=".split-") as train_folder,
        tempfile.TemporaryDirectory(dir=out_valid.parent, prefix=".split-") as valid_folder,
        open_data_file(path) as source,
    ):
        parts = [Path(train_folder) / "train.jsonl", Path(valid_folder) / "valid.jsonl"]
        with parts[0].open("wb") as train, parts[1].open("wb") as valid:
            for number, raw in each_line(source):
                assert raw is not None, "too long a line is an error"
                if raw.strip(BLANK):
                    (valid if number in held_out else train).write(raw)
            for file in (train, valid):
                file.flush()
                os.fsync(file.fileno())
        parts[0].replace(out_train)
        parts[1].replace(out_valid)

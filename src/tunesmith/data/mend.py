"""Mending a data set by machine: a new file made from the old one by chosen fixes, and a summary of every change.

Rows that no fix touches keep their bytes, white space and line ends included, and the order stays. Fixes are applied in
the order of ``FIX_ORDER``: a role is normalised before it is judged, and rows that a fix has made equal are duplicates.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec

from tunesmith.core.errors import InvalidRequest
from tunesmith.data.content.personal import find_personal, shown_masked
from tunesmith.data.content.turns import view
from tunesmith.data.json_line import BOM
from tunesmith.data.read import BLANK, MAX_LINE_BYTES, Progress, open_data_file
from tunesmith.data.row_edit import Edit, Edited, mask_row, normalise_row, strip_row
from tunesmith.data.rows import Row
from tunesmith.data.rules import RULES, FixName
from tunesmith.data.scan import scan
from tunesmith.data.splice import Replacement, spliced
from tunesmith.data.token_table import TableBuilder
from tunesmith.data.tokens import RowTokenizer
from tunesmith.data.writing import writing

FIX_ORDER: tuple[FixName, ...] = ("normalise_roles", "strip", "mask_personal_data", "drop_rows", "deduplicate")
MAX_DIFFS_PER_FIX = 3
EXCERPT_CHARS = 160


class LineDiff(msgspec.Struct, frozen=True, kw_only=True):
    """One change, as an example. Texts are cut to what is near the change; personal data is masked in both."""

    fix: FixName
    line: int
    """In the file that was mended."""
    json_path: str | None = None
    before: str
    after: str | None
    """None: the row was dropped."""
    reason: str | None = None
    """Why it was dropped."""


class FixCount(msgspec.Struct, frozen=True, kw_only=True):
    fix: FixName
    num_rows: int
    num_places: int
    """Texts or roles that were changed; for dropped rows their number."""


class MendSummary(msgspec.Struct, frozen=True, kw_only=True):
    num_rows_before: int
    num_rows_after: int
    num_changed: int
    """Rows that are still there, with another text or role."""
    num_dropped: int
    num_unreadable_rows: int
    """Rows that are still there and that no fix of roles or texts could read: they are as they were, with all personal
    data that they may hold."""
    fixes: list[FixCount]
    """Of the chosen fixes, in the order in which they were applied."""
    diffs: list[LineDiff]

    @property
    def is_unchanged(self) -> bool:
        return self.num_changed == self.num_dropped == 0


RowErrors = Callable[[Row, int, int], str | None]
"""(row, line, bytes) -> what else is wrong, for instance that it does not fit a model; None when nothing is."""


def token_errors(tokenizer: RowTokenizer, limit_tokens: int) -> RowErrors:
    """The errors that only a model's tokenizer sees, for ``mend``."""
    builder = TableBuilder(tokenizer, limit_tokens)

    def first_error(row: Row, line: int, num_bytes: int) -> str | None:
        errors = (f.what for f in builder.add(row, line, num_bytes) if RULES[f.rule].severity == "error")
        return next(errors, None)

    return first_error


def mend(
    path: Path,
    out: Path,
    fixes: Sequence[FixName],
    *,
    lines: Collection[int] | None = None,
    row_errors: RowErrors | None = None,
    must_change: bool = False,
    progress: Progress | None = None,
) -> MendSummary:
    """Write ``path`` with ``fixes`` applied to ``out``, which appears complete or not at all.

    ``drop_rows`` drops the rows at ``lines``; without them those that have an error of their own or by ``row_errors``.
    Raises InvalidRequest for fixes that are none or unknown, lines without a row, when no row would be left and, where
    it ``must_change``, when nothing would; DataError for a file that is not text.
    """
    chosen = _chosen(fixes, lines)
    open_data_file(path).close()
    with writing(path, out), tempfile.TemporaryDirectory(dir=out.parent, prefix=".mend-") as folder:
        mending, source = _Mending(chosen), path
        if set(chosen) & _EDITS.keys():
            source = Path(folder) / "edited.jsonl"
            mending.edit(path, source)
        mending.find_drops(source, None if lines is None else frozenset(lines), row_errors, progress)
        if must_change:
            _require_change(mending.summary())
        mended = Path(folder) / "mended.jsonl"
        mending.write(source, mended)
        mended.replace(out)
    return mending.summary()


def _chosen(fixes: Sequence[FixName], lines: Collection[int] | None) -> list[FixName]:
    unknown = sorted(set(fixes) - set(get_args(FixName)))
    if unknown or not fixes:
        what = f"There is no fix {unknown[0]!r}." if unknown else "No fix was chosen."
        raise InvalidRequest(what, param="fixes", code="invalid_value", mend=f"Choose of: {', '.join(FIX_ORDER)}.")
    if lines is not None and "drop_rows" not in fixes:
        raise InvalidRequest(
            "lines are the rows to drop, but drop_rows is not among the fixes.",
            param="lines",
            code="invalid_parameter_combination",
            mend="Add drop_rows, or leave lines out.",
        )
    return [fix for fix in FIX_ORDER if fix in fixes]


def _require_change(summary: MendSummary) -> None:
    if summary.is_unchanged:
        num = summary.num_unreadable_rows
        raise InvalidRequest(
            "These fixes change nothing in the file, so no new file was made."
            + (f" Rows that could not be read: {num:,}." if num else ""),
            param="fixes",
            code="nothing_to_mend",
            mend="Choose the fixes that the report's groups name.",
        )


_EDITS: dict[FixName, Callable[[bytes], Edited | None]] = {
    "normalise_roles": normalise_row,
    "strip": strip_row,
    "mask_personal_data": mask_row,
}


class _Mending:
    """What one call finds and counts, from file to file: edit, then find what to drop, then write."""

    def __init__(self, fixes: list[FixName]):
        self._fixes = fixes
        self._num_rows: Counter[FixName] = Counter()
        self._num_places: Counter[FixName] = Counter()
        self._diffs: dict[FixName, list[LineDiff]] = {fix: [] for fix in fixes}
        self._changed: set[int] = set()
        self._dropped: set[int] = set()
        self._unreadable: set[int] = set()
        self._num_before = 0

    def edit(self, path: Path, out: Path) -> None:
        """Change roles and texts; no row comes or goes."""
        edits = [fix for fix in self._fixes if fix in _EDITS]
        with out.open("wb") as file:
            for number, line in _lines(path):
                if line.is_too_long:
                    self._unreadable.add(number)
                file.writelines(line._replace(body=self._edited(line.body, edits, number)).pieces)

    def _edited(self, body: bytes, edits: list[FixName], line: int) -> bytes:
        for fix in edits if body else ():
            edited = _EDITS[fix](body)
            if edited is None:
                self._unreadable.add(line)
                break
            body, changes = edited
            self._note_edits(fix, line, changes)
        return body

    def find_drops(
        self, path: Path, lines: frozenset[int] | None, row_errors: RowErrors | None, progress: Progress | None
    ) -> None:
        """Judge every row as a check does."""
        first_lines: dict[int, int] = {}
        missing = set(lines or ())
        for batch in scan(path, progress=progress):
            self._num_before += len(batch.numbers)
            missing.difference_update(batch.numbers)
            errors = {f.line: f.what for f in reversed(batch.findings) if RULES[f.rule].severity == "error"}
            for number, raw, row in zip(batch.numbers, batch.raws, batch.rows, strict=True):
                why = None
                if "drop_rows" in self._fixes:
                    why = _why_to_drop(number, raw, row, lines, errors, row_errors)
                if why is not None:
                    self._note_drop("drop_rows", why, number, raw)
                elif "deduplicate" in self._fixes and row is not None:
                    first = first_lines.setdefault(view(row, number).row_key, number)
                    if first != number:
                        self._note_drop("deduplicate", f"It repeats line {first}.", number, raw)
        if missing:
            raise InvalidRequest(
                f"There is no row at line {min(missing)}.",
                param="lines",
                code="invalid_value",
                mend="Lines count from 1, blank ones too.",
            )

    def write(self, path: Path, out: Path) -> None:
        """All but the dropped rows. Raises InvalidRequest when none is left."""
        if self._dropped and len(self._dropped) == self._num_before:
            raise InvalidRequest(
                "No row would be left.", param="fixes", code="invalid_value", mend="Choose fewer rows or fixes."
            )
        with out.open("wb") as file:
            for number, line in _lines(path):
                file.writelines(line.pieces[:1] if number in self._dropped else line.pieces)
            file.flush()
            os.fsync(file.fileno())

    def summary(self) -> MendSummary:
        counts = [
            FixCount(fix=fix, num_rows=self._num_rows[fix], num_places=self._num_places[fix]) for fix in self._fixes
        ]
        return MendSummary(
            num_rows_before=self._num_before,
            num_rows_after=self._num_before - len(self._dropped),
            num_changed=len(self._changed - self._dropped),
            num_dropped=len(self._dropped),
            num_unreadable_rows=len(self._unreadable - self._dropped),
            fixes=counts,
            diffs=[diff for fix in self._fixes for diff in self._diffs[fix]],
        )

    def _note_edits(self, fix: FixName, line: int, edits: list[Edit]) -> None:
        if not edits:
            return
        self._changed.add(line)
        self._num_rows[fix] += 1
        self._num_places[fix] += len(edits)
        if len(self._diffs[fix]) < MAX_DIFFS_PER_FIX:
            before, after = _excerpts(edits[0].before, edits[0].after)
            path = edits[0].json_path
            self._diffs[fix].append(LineDiff(fix=fix, line=line, json_path=path, before=before, after=after))

    def _note_drop(self, fix: FixName, why: str, line: int, raw: bytes) -> None:
        self._dropped.add(line)
        self._num_rows[fix] += 1
        self._num_places[fix] += 1
        if len(self._diffs[fix]) < MAX_DIFFS_PER_FIX:
            before = _cut(_shown(raw[: 64 * EXCERPT_CHARS].decode("utf-8", "replace")))
            self._diffs[fix].append(LineDiff(fix=fix, line=line, before=before, after=None, reason=why))


def _why_to_drop(
    number: int,
    raw: bytes,
    row: Row | None,
    lines: frozenset[int] | None,
    errors: dict[int | None, str],
    row_errors: RowErrors | None,
) -> str | None:
    if lines is not None:
        return "It was chosen." if number in lines else None
    if row is None:
        return errors.get(number, "The row has an error.")
    return None if row_errors is None else row_errors(row, number, len(raw))


class _Line(NamedTuple):
    """One line of a file in four pieces that are all its bytes. The body is the row; it is empty in a blank line."""

    mark: bytes
    """The byte-order mark, in the first line."""
    lead: bytes
    body: bytes
    end: bytes
    is_too_long: bool = False
    """Then all of it is its end."""

    @property
    def pieces(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self.mark, self.lead, self.body, self.end


def _lines(path: Path) -> Iterator[tuple[int, _Line]]:
    """(number, line) of every line. One that is too long to be a row comes in several pieces, all of them its end."""
    number, is_new = 0, True
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += is_new
            is_whole = is_new and (len(raw) <= MAX_LINE_BYTES or raw.endswith(b"\n"))
            yield number, _cut_line(raw, number) if is_whole else _Line(b"", b"", b"", raw, is_too_long=True)
            is_new = raw.endswith(b"\n")


def _cut_line(raw: bytes, number: int) -> _Line:
    mark = BOM if number == 1 and raw.startswith(BOM) else b""
    body = raw[len(mark) :].strip(BLANK)
    start = raw.index(body, len(mark))
    return _Line(mark, raw[len(mark) : start], body, raw[start + len(body) :])


def _excerpts(before: str, after: str) -> tuple[str, str]:
    """Both texts near their first difference, personal data unreadable in both."""
    before, after = _shown(before), _shown(after)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    start = max(0, same - EXCERPT_CHARS // 4)
    return _cut(before, start), _cut(after, start)


def _cut(text: str, start: int = 0) -> str:
    end = start + EXCERPT_CHARS
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def _shown(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    return spliced(text, [Replacement(s.start, s.end, shown_masked(text, s)) for s in find_personal(text)])

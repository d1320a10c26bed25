"""A file from its first line to its last: typed rows and everything structural that is wrong with them, in batches.

One pass, flat memory. This is what every check reads a file by.
"""

from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import msgspec

from tunesmith.core.errors import DataError
from tunesmith.data.explain import OLD_NAMES, guess_kind
from tunesmith.data.findings import Finding
from tunesmith.data.formats import read_row
from tunesmith.data.notes import quoted
from tunesmith.data.read import BLANK, TOO_LONG, Line, Progress, each_line, open_data_file
from tunesmith.data.rows import Keys, Kind, Row, top_level_keys

_BATCH_BYTES = 2**20
_BATCH_LINES = 8192
BATCH_MULTIPLE = 16
"""Rows of a batch are a multiple of this, but for the last one: what is counted in groups never crosses its end."""
_BATCH_FINDINGS = 10_000
_SURVEY_ROWS = 100
_SURVEY_LINES = 1000
_SURVEY_BYTES = 2**25


class Batch(msgspec.Struct):
    """About a megabyte of lines. ``numbers``, ``raws`` and ``rows`` go together; blank lines are in none of them.

    The row is None where the line has an error; warnings and hints keep it. ``raws`` are without line ends, and empty
    for a line that was too long to read.
    """

    first_line: int
    numbers: list[int]
    raws: list[bytes]
    rows: list[Row | None]
    findings: list[Finding]


def scan(path: Path, *, kind: Kind | None = None, progress: Progress | None = None) -> Iterator[Batch]:
    """Batches of a file in order. Without a ``kind`` the first rows decide it.

    A file that is not text at all gives one batch without rows, with the finding. Raises OSError only.
    """
    try:
        file = open_data_file(path)
    except DataError as error:
        yield Batch(1, [], [], [], [_file_finding(error)])
        return
    with file:
        size, start = path.stat().st_size, file.tell()
        survey = _survey(file, kind)
        file.seek(start)
        yield from _Scanner(file, survey, size, progress).batches()


def detect_kind(path: Path) -> Kind | None:
    """What most of the first rows are; None when none of them is a row of any kind."""
    try:
        file = open_data_file(path)
    except DataError:
        return None
    with file:
        return _survey(file, None).kind


class _Survey(msgspec.Struct, frozen=True):
    kind: Kind | None
    keys: Keys
    """Top-level keys of most of the first rows."""


def _survey(file: BufferedReader, kind: Kind | None) -> _Survey:
    kinds: Counter[Kind] = Counter()
    keys: Counter[Keys] = Counter()
    start = file.tell()
    for number, raw in each_line(file):
        value = None if raw is None else _object(raw)
        guess = None if value is None else guess_kind(value)
        if value is not None and guess is not None:
            kinds[guess] += 1
            keys[frozenset(OLD_NAMES.get(key, key) for key, inner in value.items() if inner is not None)] += 1
        if kinds.total() >= _SURVEY_ROWS or number >= _SURVEY_LINES or file.tell() - start >= _SURVEY_BYTES:
            break
    if kind is None and kinds:
        kind = kinds.most_common(1)[0][0]
    return _Survey(kind, keys.most_common(1)[0][0] if keys else frozenset())


def _object(raw: bytes) -> dict[str, object] | None:
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _file_finding(error: DataError) -> Finding:
    assert error.code is not None
    return Finding(rule=error.code, what=error.message, line=error.line)


class _Scanner:
    def __init__(self, file: BufferedReader, survey: _Survey, size: int, progress: Progress | None):
        self._file = file
        self._kind: Kind = survey.kind or "chat"
        self._keys = survey.keys
        self._size = size
        self._progress = progress

    def batches(self) -> Iterator[Batch]:
        lines = each_line(self._file)
        while (batch := self._batch(lines)) is not None:
            if self._progress is not None:
                self._progress(self._file.tell(), self._size)
            yield batch

    def _batch(self, lines: Iterator[Line]) -> Batch | None:
        """The next lines, up to a megabyte; None at the end of the file."""
        batch: Batch | None = None
        num_bytes = 0
        for number, raw in lines:
            if batch is None:
                batch = Batch(number, [], [], [], [])
            if raw is None:
                self._add_too_long(batch, number)
            elif text := raw.strip(BLANK):
                num_bytes += len(text)
                self._add_row(batch, number, text)
            else:
                batch.findings.append(Finding(rule="blank_line", what="The line is blank.", line=number))
            if self._is_full(batch, number, num_bytes):
                break
        return batch

    @staticmethod
    def _is_full(batch: Batch, number: int, num_bytes: int) -> bool:
        if len(batch.findings) >= _BATCH_FINDINGS:
            return True
        is_enough = num_bytes >= _BATCH_BYTES or number - batch.first_line >= _BATCH_LINES
        return is_enough and len(batch.numbers) % BATCH_MULTIPLE == 0

    def _add_row(self, batch: Batch, number: int, raw: bytes) -> None:
        row, findings = read_row(raw, number, self._kind)
        batch.numbers.append(number)
        batch.raws.append(raw)
        batch.rows.append(row)
        if findings:
            batch.findings += findings
        if row is not None and (keys := top_level_keys(row)) != self._keys:
            self._note_keys(keys, number, batch)

    def _add_too_long(self, batch: Batch, number: int) -> None:
        batch.numbers.append(number)
        batch.raws.append(b"")
        batch.rows.append(None)
        batch.findings.append(Finding(rule="line_too_long", what=TOO_LONG, line=number))

    def _note_keys(self, keys: Keys, number: int, batch: Batch) -> None:
        """A key that most rows have and this one has not, or the other way round."""
        changes = (("it has", keys - self._keys), ("it lacks", self._keys - keys))
        said = " and ".join(f"{word} {', '.join(map(quoted, sorted(some)))}" for word, some in changes if some)
        what = f"The keys are not those of the other rows: {said}."
        batch.findings.append(Finding(rule="inconsistent_keys", what=what, line=number, json_path="$"))

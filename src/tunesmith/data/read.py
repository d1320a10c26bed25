"""Lines of a data file, streamed: memory stays flat whatever the file's size, and whatever a line's."""

from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from tunesmith.core.errors import DataError
from tunesmith.data.file_form import HEAD_BYTES, require_lines
from tunesmith.data.formats import ChatRow, decode_row
from tunesmith.data.json_line import BOM

MAX_LINE_BYTES = 16 * 2**20
"""Several times what the longest context holds. A line is decoded whole, at up to some ten times its size."""
_MAX_VALUES = 500_000
"""Values in one line. ``[{},{},{}...`` takes thirty times its size when it is decoded."""
_RICH_BYTES = 2**20
"""Shorter lines may hold what they like."""
TOO_LONG = f"The line has more than {MAX_LINE_BYTES // 2**20} MiB, or more than {_MAX_VALUES:,} values."
BLANK = b" \t\r\n"
_BUFFER_BYTES = 2**20

Progress = Callable[[int, int], None]
"""Told (parts done, parts in all), bytes for instance, about once a megabyte or a second, and at the end."""
Line = tuple[int, bytes | None]
"""(number from 1, bytes with their line end). None in the place of a line that is too long or too rich to decode."""


def open_data_file(path: Path) -> BufferedReader:
    """The file, after its byte-order mark. Raises DataError for one that is not lines of text, by its name."""
    file: BufferedReader = BufferedReader(path.open("rb", buffering=0), _BUFFER_BYTES)
    try:
        require_lines(file.peek(HEAD_BYTES)[:HEAD_BYTES])
    except DataError:
        file.close()
        raise
    if file.peek(3).startswith(BOM):
        file.read(3)
    return file


def each_line(file: BufferedReader) -> Iterator[Line]:
    """Every line from here, blank ones too."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) <= _RICH_BYTES:
            yield number, raw
            continue
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            raw = b""
            _skip_line(file)
        yield number, None if not raw or _is_rich(raw) else raw


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes without the line end) of every line that is not blank.

    A byte-order mark, CRLF and a missing last newline are accepted. Raises DataError for what is not lines of text, by
    its name, and for a line that is too long.
    """
    with open_data_file(path) as file:
        for line, raw in each_line(file):
            if raw is None:
                raise DataError(TOO_LONG, line=line, mend="Write one row per line; split the row.")
            text = raw.strip(BLANK)
            if text:
                yield line, text


def read_rows(path: Path) -> Iterator[tuple[int, ChatRow]]:
    """(line number, row) of every row. Raises DataError at the first one that is wrong."""
    for line, raw in read_lines(path):
        yield line, decode_row(raw, line)


def _is_rich(raw: bytes) -> bool:
    return sum(raw.count(mark) for mark in (b",", b"{", b"[")) > _MAX_VALUES


def _skip_line(file: BufferedReader) -> None:
    while (piece := file.readline(_BUFFER_BYTES)) and not piece.endswith(b"\n"):
        pass

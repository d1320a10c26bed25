"""Lines of a data file, streamed: memory stays flat whatever the file's size."""

from collections.abc import Iterator
from pathlib import Path

from tunesmith.core.errors import DataError
from tunesmith.data.formats import ChatRow, decode_row

BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes without the line end) of every line that is not blank.

    A byte-order mark, CRLF and a missing last newline are accepted. A gzip file is refused by name.
    """
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if line == 1:
                if raw.startswith(GZIP):
                    raise DataError("The file is compressed with gzip.", line=1, mend="Upload it uncompressed.")
                raw = raw.removeprefix(BOM)
            text = raw.strip()
            if text:
                yield line, text


def read_rows(path: Path) -> Iterator[tuple[int, ChatRow]]:
    """(line number, row) of every row. Raises DataError at the first one that is wrong."""
    for line, raw in read_lines(path):
        yield line, decode_row(raw, line)

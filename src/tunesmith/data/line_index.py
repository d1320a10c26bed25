"""Any line of a large file at once: where every thousandth line begins."""

import secrets
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.read import BLANK, Line, each_line, open_data_file

STRIDE_LINES = 1000
_CHUNK_BYTES = 2**22
_NEWLINE = 10


class LineIndex:
    """``starts[k]`` is the byte at which line ``1 + k * STRIDE_LINES`` begins."""

    def __init__(self, starts: NDArray[np.int64]):
        self._starts = starts

    @classmethod
    def of(cls, path: Path, kept: Path | None = None) -> "LineIndex":
        """Read from ``kept`` if it is there, else found by reading ``path`` once and then kept."""
        if kept is not None and kept.exists():
            return cls(np.load(kept))
        index = cls(_find_starts(path))
        if kept is not None:
            index._keep(kept)
        return index

    def rows(self, path: Path, after_line: int) -> Iterator[Line]:
        """(line number, bytes without white space at the ends) of every line after one that is not blank.

        None stands for a line that is too long to be a row.
        """
        place = self._place(after_line + 1)
        with open_data_file(path) as file:
            if place:
                file.seek(int(self._starts[place]))
            for number, raw in each_line(file):
                line = number + place * STRIDE_LINES
                if line > after_line and (raw is None or raw.strip(BLANK)):
                    yield line, None if raw is None else raw.strip(BLANK)

    def row(self, path: Path, line: int) -> bytes | None:
        """The row at ``line``; None when there is no such line, it is blank, or too long."""
        found = next(self.rows(path, line - 1), None)
        return found[1] if found is not None and found[0] == line else None

    def rows_at(self, path: Path, lines: Iterable[int]) -> Iterator[Line]:
        """What ``rows`` gives, of these lines, which rise; blank ones are empty. No byte is read twice."""
        with open_data_file(path) as file:
            for place, some in groupby(lines, key=self._place):
                if place:
                    file.seek(int(self._starts[place]))
                here = each_line(file)
                for wanted in some:
                    for number, raw in here:
                        if number + place * STRIDE_LINES == wanted:
                            yield wanted, None if raw is None else raw.strip(BLANK)
                            break

    def _place(self, line: int) -> int:
        return min((line - 1) // STRIDE_LINES, len(self._starts) - 1)

    def _keep(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
        np.save(temporary, self._starts)
        temporary.replace(path)


def _find_starts(path: Path) -> NDArray[np.int64]:
    starts, num_lines, position = [np.zeros(1, np.int64)], 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _NEWLINE)
            first = -(num_lines + 1) % STRIDE_LINES
            starts.append(ends[first::STRIDE_LINES] + position + 1)
            num_lines += len(ends)
            position += len(chunk)
    return np.concatenate(starts)

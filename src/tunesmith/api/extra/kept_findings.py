"""Every finding of a check on the disk: as lines to stream, and an index to find those of a line or a rule.

``findings.jsonl`` has one finding a line, in the order of the check; ``findings.npz`` has for each, sorted by line, its
line (0: the whole file), the number of its rule, and the byte at which it begins.
"""

from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunesmith.data.findings import Finding

FINDINGS_FILE, INDEX_FILE = "findings.jsonl", "findings.npz"


class FindingWriter:
    """A check's sink: ``add`` keeps a finding. Memory grows by 24 bytes with each."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._lines, self._rules, self._offsets = array("q"), array("q"), array("q")
        self._rule_ids: dict[str, int] = {}
        self._num_bytes = 0
        self._file = (folder / FINDINGS_FILE).open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self._write_index()

    def add(self, finding: Finding) -> None:
        raw = msgspec.json.encode(finding) + b"\n"
        self._file.write(raw)
        self._lines.append(finding.line or 0)
        self._rules.append(self._rule_ids.setdefault(finding.rule, len(self._rule_ids)))
        self._offsets.append(self._num_bytes)
        self._num_bytes += len(raw)

    def _write_index(self) -> None:
        lines = np.array(self._lines, np.int64)
        order = np.argsort(lines, kind="stable")
        np.savez(
            self._folder / INDEX_FILE,
            lines=lines[order],
            rules=np.array(self._rules, np.int64)[order],
            offsets=np.array(self._offsets, np.int64)[order],
            rule_ids=np.array(list(self._rule_ids), np.str_),
        )


class KeptFindings:
    """The findings of a finished check."""

    def __init__(self, folder: Path):
        self._path = folder / FINDINGS_FILE
        with np.load(folder / INDEX_FILE) as arrays:
            self._lines: NDArray[np.int64] = arrays["lines"]
            self._rules: NDArray[np.int64] = arrays["rules"]
            self._offsets: NDArray[np.int64] = arrays["offsets"]
            self._rule_ids = [str(rule) for rule in arrays["rule_ids"]]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, folder: Path) -> "KeptFindings":
        """The findings in a folder, whose content never changes."""
        return cls(folder)

    def lines_with(self, rule: str, after_line: int) -> list[int]:
        """The lines after one at which a rule found something, in order."""
        if rule not in self._rule_ids:
            return []
        wanted = (self._rules == self._rule_ids.index(rule)) & (self._lines > after_line)
        return [int(line) for line in np.unique(self._lines[wanted])]

    def of_line(self, line: int) -> list[Finding]:
        first, end = (int(place) for place in np.searchsorted(self._lines, [line, line + 1]))
        with self._path.open("rb") as file:
            return [self._read(file, int(offset)) for offset in self._offsets[first:end]]

    def stream(self) -> Iterator[bytes]:
        """All of them as lines of JSON, in the order of the check."""
        with self._path.open("rb") as file:
            while chunk := file.read(2**20):
                yield chunk

    @staticmethod
    def _read(file: BinaryIO, offset: int) -> Finding:
        file.seek(offset)
        return msgspec.json.decode(file.readline(), type=Finding)

"""Token tables kept by content: a file that was tokenised once for a model is never tokenised again.

One ``.npz`` file a table, named by the file's SHA-256, the tokenizer's identity and the version of the format. One
that cannot be read is made again.
"""

import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tunesmith.data.token_table import TokenTable

VERSION = 1
"""To be raised when the same rows would give another table: rendering, marks, digests or shared prefixes changed."""


def is_same_file(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file was left alone between two looks: only then do its digest and its table belong together."""
    return (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)


class TokenCache:
    """Tables in ``home/cache/tokens``. Safe for several processes: a table is written whole or not at all."""

    def __init__(self, home: Path):
        self._dir = home / "cache" / "tokens"

    def find(self, file_sha256: str, identity: str, limit: int) -> TokenTable | None:
        """The kept table. ``limit`` belongs to the name: rows too large for it are not tokenised."""
        try:
            with self._path(file_sha256, identity, limit).open("rb") as file, np.load(file) as stored:
                return _table(stored)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def keep(self, table: TokenTable, file_sha256: str, identity: str, limit: int) -> None:
        path = self._path(file_sha256, identity, limit)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            _save(table, file)
        Path(temporary).replace(path)

    def _path(self, file_sha256: str, identity: str, limit: int) -> Path:
        return self._dir / f"{file_sha256}-{identity[:32]}-{limit}-v{VERSION}.npz"


def _table(stored: Mapping[str, npt.NDArray[Any]]) -> TokenTable:
    return TokenTable(
        lines=stored["lines"],
        num_tokens=stored["num_tokens"],
        num_supervised=stored["num_supervised"],
        longest=stored["longest"],
        digests=stored["digests"],
        num_bad_rows=int(stored["num_bad_rows"]),
        shared_prefix_tokens=int(stored["shared_prefix_tokens"]),
    )


def _save(table: TokenTable, file: BinaryIO) -> None:
    np.savez(
        file,
        lines=table.lines,
        num_tokens=table.num_tokens,
        num_supervised=table.num_supervised,
        longest=table.longest,
        digests=table.digests,
        num_bad_rows=np.int64(table.num_bad_rows),
        shared_prefix_tokens=np.int64(table.shared_prefix_tokens),
    )

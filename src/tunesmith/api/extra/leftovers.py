"""What killed servers and deleted files leave in the home.

Another server may share the home, and be at work. It locks the folders in which it makes something, and the kernel
unlocks those of a dead one; what has no lock counts as left behind when nothing in it has changed for an hour.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.core.settings import Settings

STALE_S = 3600.0
UNLOCKED_S = 1.0
"""Between the making of a folder and its lock lies a moment."""
_LOCKED = ("cache/.making-*", "cache/reports/*/.making-*")
_UNLOCKED = ("estimate-*", "cache/files/*.tmp", "cache/tokens/*.tmp", "cache/reports/*/.*.npy")
"""Below the home: what these match is in the making, or was."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Tell other servers that somebody works in a new folder, until the end of the block or of this process."""
    with _descriptor(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def sweep(settings: Settings) -> None:
    """Delete what nobody works at any more."""
    for path in _old(settings.home, _LOCKED, UNLOCKED_S):
        if not _is_locked(path):
            _delete(path)
    for path in _old(settings.home, _UNLOCKED, STALE_S):
        _delete(path)


def forget_tokens(settings: Settings, sha256: str) -> None:
    """Delete the token tables of a content."""
    for path in (settings.home / "cache" / "tokens").glob(f"{sha256}-*"):
        path.unlink(missing_ok=True)


def _old(home: Path, patterns: tuple[str, ...], age_s: float) -> Iterator[Path]:
    """What matches and has not changed for so long."""
    newest_s = time.time() - age_s
    for pattern in patterns:
        for path in list(home.glob(pattern)):
            if _changed_at_s(path) < newest_s:
                yield path


def _changed_at_s(path: Path) -> float:
    """When anything in it last changed; now, when it is just being deleted."""
    try:
        return max(each.lstat().st_mtime for each in [path, *path.rglob("*")])
    except FileNotFoundError:
        return time.time()


@contextmanager
def _descriptor(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_locked(folder: Path) -> bool:
    """True also of what is no longer there."""
    try:
        with _descriptor(folder) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return True
    return False


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

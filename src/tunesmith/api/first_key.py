"""The first API key's file: the only place that keeps its text, for the command line on this machine.

Nothing but the standard library: the command line imports this for every call.
"""

import os
from pathlib import Path

FIRST_KEY_FILE = "first_key"
"""In ``TUNESMITH_HOME``."""


def keep_first_key(home: Path, key: str) -> None:
    """Write the key where only its owner can read it. When this returns it is on the disk, whole."""
    path = home / FIRST_KEY_FILE
    new = path.with_name(f"{FIRST_KEY_FILE}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync_folder(home)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

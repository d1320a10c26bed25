"""This machine: what is free on it, and how fast it multiplies. Not covered: accelerators."""

import shutil
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import psutil

CGROUP = Path("/sys/fs/cgroup")
_PROBE_SIZE, _PROBE_S = 768, 0.25


@dataclass(frozen=True)
class Machine:
    """Bytes of memory and of the disk that holds ``home``."""

    free_memory_bytes: int
    total_memory_bytes: int
    free_disk_bytes: int


def look_at_machine(home: Path) -> Machine:
    """What is free now. A container's own limit counts where it is lower than the machine's."""
    memory = psutil.virtual_memory()
    free, total = int(memory.available), int(memory.total)
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    if limit is not None and limit < total:
        total = limit
        free = min(free, max(0, limit - (used or 0)))
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    return Machine(free, total, shutil.disk_usage(place).free)


@cache
def matmul_rate() -> float:
    """float32 operations per second of a matrix product; takes a quarter of a second, once.

    The best of that time: one product takes some milliseconds, and other programs may have the processor just then.
    """
    a = np.ones((_PROBE_SIZE, _PROBE_SIZE), dtype=np.float32)
    until = time.perf_counter() + _PROBE_S
    best = _timed(a)
    while time.perf_counter() < until:
        best = min(best, _timed(a))
    return 2.0 * _PROBE_SIZE**3 / best


def _timed(a: "np.ndarray[tuple[int, int], np.dtype[np.float32]]") -> float:
    started = time.perf_counter()
    a @ a
    return time.perf_counter() - started


def _cgroup_bytes(name: str) -> int | None:
    try:
        text = (CGROUP / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None

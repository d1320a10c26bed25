"""Trainers as processes of this machine, each in a session of its own: they outlive the server that started them."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from tunesmith.core.log import get_logger
from tunesmith.core.types import LOCK_FILE, TRAINER_LOG

log = get_logger(__name__)

# -P: nothing in the current folder can stand in for a module of the trainer.
TRAINER_COMMAND = (sys.executable, "-P", "-m", "tunesmith.trainer")
DROPPED_VARIABLES = ("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT", "TUNESMITH_API_KEY")


class LocalLauncher:
    """Starts, watches and kills trainers. ``command`` is followed by the run directory.

    A trainer lives as long as it holds the lock in its run directory. Between its start and its taking the lock it is
    found as our child or, by a server that did not start it, by its command line.
    """

    def __init__(self, num_threads: int = 0, command: Sequence[str] = TRAINER_COMMAND):
        self._command = tuple(command)
        self._num_threads = num_threads or _num_cores()
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self, run_dir: Path) -> None:
        """Start the trainer of ``run_dir``; what it prints is appended to its log."""
        with (run_dir / TRAINER_LOG).open("ab") as output:
            self._children[run_dir] = subprocess.Popen(
                [*self._command, str(run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=run_dir,
                env=self._environment(),
                start_new_session=True,
            )

    def is_alive(self, run_dir: Path) -> bool:
        """Whether a trainer of ``run_dir`` runs, whoever started it. Takes the exit status of a dead child."""
        child = self._children.get(run_dir)
        if child is not None and child.poll() is None:
            return True
        return _is_locked(run_dir / LOCK_FILE) or bool(self._find(run_dir))

    def exit_status(self, run_dir: Path) -> int | None:
        """Of a trainer that this launcher started and that has ended; negative: the signal that killed it."""
        child = self._children.get(run_dir)
        return None if child is None else child.poll()

    def kill(self, run_dir: Path) -> None:
        """End the trainer's whole session at once, without asking."""
        for process_id in self._find(run_dir):
            log.warning("Killing trainer %d of %s.", process_id, run_dir.name)
            try:
                os.killpg(process_id, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def reap(self) -> None:
        """Take the exit status of every child that has ended, so that none stays a zombie."""
        for child in self._children.values():
            child.poll()

    def forget(self, run_dir: Path) -> None:
        """The run has ended for us. A child that still runs is kept, to be reaped when it ends."""
        child = self._children.get(run_dir)
        if child is not None and child.poll() is not None:
            del self._children[run_dir]

    def _find(self, run_dir: Path) -> list[int]:
        """Process ids of leaders of sessions that run this launcher's command on ``run_dir``."""
        wanted = [*self._command, str(run_dir)]
        # A zombie has no command line any more.
        return [process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == wanted]

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in DROPPED_VARIABLES}
        threads = str(self._num_threads)
        return environment | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}


def _num_cores() -> int:
    """Cores that this process may use; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the exclusive lock. A shared lock is tried, and let go at once."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

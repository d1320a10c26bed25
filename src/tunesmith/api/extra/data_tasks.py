"""The parent's side of ``data_process``: start it, follow it, end it with the server."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from tunesmith.api.extra.data_process import Failure, Message, Order, Task
from tunesmith.core import errors
from tunesmith.core.errors import TooManyRequests, TunesmithError, Unavailable
from tunesmith.serving.engines.child import ENVIRON

WORKER = "tunesmith.api.extra.data_process"

MAX_AWAITED = 4
"""Tasks at once whose request waits for them: each holds one of the forty threads that answer requests."""

OnFraction = Callable[[float], None]
"""Told the fraction done, 0 to 1."""


class DataTasks:
    """Runs tasks, each in a child, from any thread."""

    def __init__(self) -> None:
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_AWAITED)
        self._is_stopped = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places for work that a request waits for. Raises TooManyRequests when all are taken."""
        if not self._places.acquire(blocking=False):
            raise TooManyRequests(
                f"{MAX_AWAITED} files are being mended or split, the most at once.",
                code="data_tasks_busy",
                mend="Try again when one of them is done.",
            )
        try:
            yield
        finally:
            self._places.release()

    def run(self, task: Task, on_fraction: OnFraction = lambda _: None) -> bytes:
        """Do a task and wait for it; its result as JSON.

        Raises the TunesmithError that it raised, Unavailable (``data_task_died``) when the child ends without a word.
        """
        child = self._start(task)
        result: bytes | Failure | None = None
        try:
            assert child.stdout is not None
            for line in child.stdout:
                message = msgspec.json.decode(line, type=Message)
                if message.fraction is not None:
                    on_fraction(message.fraction)
                result = message.error or bytes(message.result) or result
        finally:
            self._end(child)
        if isinstance(result, bytes):
            return result
        raise _died(child.returncode) if result is None else _raised(result)

    def stop(self) -> None:
        """End every child; no other is started."""
        with self._lock:
            self._is_stopped = True
            children = list(self._children)
        for child in children:
            child.kill()

    def _start(self, task: Task) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._is_stopped:
                raise _died(0)
            child = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | ENVIRON,
                start_new_session=True,  # Ctrl-C is for the server, which then ends its children
            )
            self._children.add(child)
        assert child.stdin is not None
        try:
            child.stdin.write(msgspec.json.encode(Order(parent_pid=os.getpid(), task=task)) + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            self._end(child)
            raise _died(child.returncode) from None
        return child

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):  # what a dead child did not read is still to be flushed
            child.stdin.close()
        child.stdout.close()
        child.wait()
        with self._lock:
            self._children.discard(child)


def _died(status: int) -> Unavailable:
    return Unavailable(
        f"The process that worked on the file ended with status {status}.",
        code="data_task_died",
        mend="Try again; the server's log tells more.",
    )


def _raised(failure: Failure) -> TunesmithError:
    """The child's error. Of a DataError the place is part of the message already."""
    kind = errors.InvalidRequest if failure.kind == "DataError" else getattr(errors, failure.kind)
    error: TunesmithError = kind(failure.message, code=failure.code, param=failure.param, mend=failure.mend)
    return error

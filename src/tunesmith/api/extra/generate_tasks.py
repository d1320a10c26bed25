"""The parent's side of ``generate_process``: start it, wait no longer than it may take, end it with the server."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from tunesmith.api.extra.data_process import Failure, Message
from tunesmith.api.extra.generate_process import JudgeTask, Order, ReadSourcesTask, Task
from tunesmith.core import errors
from tunesmith.core.errors import InvalidRequest, TunesmithError, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.data.generate.filter import Filtered
from tunesmith.data.generate.sources import Sources
from tunesmith.serving.engines.child import ENVIRON

WORKER = "tunesmith.api.extra.generate_process"
READING_LIMIT_S = 120.0
JUDGING_LIMIT_S = 3600.0
SOURCES_FILE = "sources.json"


class GenerateTasks:
    """Runs tasks, each in a child, from any thread."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def read_sources(self, seeds: list[Path], documents: list[tuple[Path, str]], seed: int, room: Path) -> Sources:
        """As ``data.generate.sources.read_sources``; ``room`` is a folder for what the child writes.

        Raises InvalidRequest also for documents that take too long.
        """
        out = room / SOURCES_FILE
        task = ReadSourcesTask(
            seeds=[str(path) for path in seeds],
            documents=[(str(path), name) for path, name in documents],
            seed=seed,
            out=str(out),
        )
        try:
            self._run(task, READING_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise InvalidRequest(
                f"The documents and seeds cannot be read in {READING_LIMIT_S:.0f} seconds.",
                code="sources_too_slow",
                param="documents",
                mend="Give fewer of them, or a PDF's text in its place.",
            ) from None
        return msgspec.json.decode(out.read_bytes(), type=Sources)

    def judge(self, folder: Path, limit: int) -> Filtered:
        """A ``data.generate.judge.Judge``. Raises Unavailable where the child dies or takes too long."""
        settings = self._settings
        task = JudgeTask(
            folder=str(folder), limit=limit, home=str(settings.home), engine_threads=settings.engine_threads
        )
        try:
            return msgspec.json.decode(self._run(task, JUDGING_LIMIT_S), type=Filtered)
        except subprocess.TimeoutExpired:
            raise _died(f"took more than {JUDGING_LIMIT_S:.0f} seconds") from None

    def stop(self) -> None:
        """End every child; no other is started."""
        with self._lock:
            self._is_stopped = True
            children = list(self._children)
        for child in children:
            child.kill()

    def _run(self, task: Task, limit_s: float) -> bytes:
        """The result as JSON. Raises the TunesmithError that the child raised, Unavailable when it ends without a word,
        and TimeoutExpired."""
        order = msgspec.json.encode(Order(parent_pid=os.getpid(), task=task)) + b"\n"
        with self._started() as child:
            try:
                said, _ = child.communicate(order, timeout=limit_s)
            finally:
                child.kill()
                with self._lock:
                    self._children.discard(child)
        if not said:
            raise _died(f"ended with status {child.returncode}")
        message = msgspec.json.decode(said, type=Message)
        if message.error is not None:
            raise _raised(message.error)
        return bytes(message.result)

    def _started(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._is_stopped:
                raise _died("was not started: the server ends")
            child = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | ENVIRON,
                start_new_session=True,  # Ctrl-C is for the server, which then ends its children
            )
            self._children.add(child)
        return child


def _died(how: str) -> Unavailable:
    return Unavailable(
        f"The process that worked on the generation {how}.",
        code="data_task_died",
        mend="Try again, or resume; the server's log tells more.",
    )


def _raised(failure: Failure) -> TunesmithError:
    """The child's error. Of a DataError the place is part of the message already."""
    kind = errors.InvalidRequest if failure.kind == "DataError" else getattr(errors, failure.kind)
    error: TunesmithError = kind(failure.message, code=failure.code, param=failure.param, mend=failure.mend)
    return error

"""The embedding engine from its parent's side: texts in, vectors out, the model in a child process."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunesmith.catalog.embedding import embedding_dir
from tunesmith.core.errors import Unavailable
from tunesmith.core.settings import Settings
from tunesmith.serving.engines.child import ENVIRON, num_threads_or_all
from tunesmith.serving.engines.embedding_worker import WorkerAnswer, WorkerConfig, WorkerFailed, WorkerReady

WORKER = "tunesmith.serving.engines.embedding_worker"
TEXTS_AT_ONCE = 512
"""Texts that go to the child in one line."""

STOP_GRACE_S = 5.0


class Embedder:
    """Vectors of texts by all-MiniLM-L6-v2, which must be installed (``catalog.embedding``).

    The child starts with the first text and ends with ``close``, or with this process, whatever ends it. Several
    threads may call ``embed``; they wait for one another.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._num_dims = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return None if self._child is None else self._child.pid

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """(number of texts, 384), each row of length 1: the dot product of two rows is their cosine.

        Raises Unavailable (``engine_start_failed``, ``engine_died``) when the child cannot start or dies; the next
        call starts another.
        """
        with self._lock:
            child = self._running()
            order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
            vectors = np.empty((len(texts), self._num_dims), np.float32)
            for start in range(0, len(order), TEXTS_AT_ONCE):
                rows = order[start : start + TEXTS_AT_ONCE]
                vectors[rows] = self._ask(child, [texts[row] for row in rows])
            return vectors

    def close(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            child, self._child = self._child, None
            if child is None:
                return
            child.terminate()
            try:
                child.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
            _reap(child)

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            self._child, self._num_dims = _start(self._settings)
        return self._child

    def _ask(self, child: "subprocess.Popen[bytes]", texts: list[str]) -> NDArray[np.float32]:
        assert child.stdin is not None
        assert child.stdout is not None
        num_bytes = len(texts) * self._num_dims * 4
        try:
            child.stdin.write(_plain_json(texts) + b"\n")
            child.stdin.flush()
            msgspec.json.decode(child.stdout.readline(), type=WorkerAnswer)
            numbers = child.stdout.read(num_bytes)
        except (BrokenPipeError, msgspec.DecodeError):
            numbers = b""
        if len(numbers) != num_bytes:
            self._child = None
            child.kill()
            raise Unavailable(
                f"The embedding engine ended with status {_reap(child)}.", code="engine_died", mend="Try again."
            )
        return np.frombuffer(numbers, "<f4").reshape(len(texts), self._num_dims)


def _start(settings: Settings) -> "tuple[subprocess.Popen[bytes], int]":
    config = WorkerConfig(
        parent_pid=os.getpid(),
        model_dir=str(embedding_dir(settings)),
        num_threads=num_threads_or_all(settings.engine_threads),
    )
    child = subprocess.Popen(
        [sys.executable, "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | ENVIRON,
        start_new_session=True,  # Ctrl-C is for us, who then end it
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(msgspec.json.encode(config) + b"\n")
    child.stdin.flush()
    line = child.stdout.readline()
    answer = msgspec.json.decode(line, type=WorkerReady | WorkerFailed) if line else WorkerFailed("it said nothing")
    if isinstance(answer, WorkerReady):
        return child, answer.num_dims
    child.kill()
    _reap(child)
    raise Unavailable(
        f"The embedding engine could not start: {answer.message}.",
        code="engine_start_failed",
        mend="Fetch its model with: tunesmith models pull all-minilm-l6-v2",
    )


def _reap(child: "subprocess.Popen[bytes]") -> int:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.close()
    with suppress(BrokenPipeError):  # what was still buffered for it
        child.stdin.close()
    return child.wait()


def _plain_json(texts: list[str]) -> bytes:
    """Half surrogates, which no UTF-8 can hold, become question marks."""
    return msgspec.json.encode([text.encode("utf-8", "replace").decode() for text in texts])

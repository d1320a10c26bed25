"""Tokenises batches of rows as a scan gives them: here, or for a large file in processes beside this one.

Tokenising is Python's own work, so threads would wait for one another. Each process gets whole batches and answers with
numbers; batches are answered in the order in which they were given, and the table is the same either way.
"""

import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

import msgspec

from tunesmith.core.errors import Unavailable
from tunesmith.data.findings import Finding
from tunesmith.data.rows import Row, kind_of
from tunesmith.data.sample import sample_texts
from tunesmith.data.scan import Batch
from tunesmith.data.token_table import TableBuilder, TokenBlock, TokenTable
from tunesmith.data.token_worker import Order, RowBatch, read_frame, write_frame
from tunesmith.data.tokens import RowTokenizer

WORKER = "tunesmith.data.token_worker"
MIN_BYTES = 24 * 2**20
"""A smaller file is done before a process has started."""
MAX_PROCESSES = 8
_STOP_GRACE_S = 5.0


class TokenCounter(Protocol):
    """Takes batches in file order."""

    depth: int
    """Batches worth being under way at once; more only take memory."""

    def submit(self, batch: Batch) -> "Future[TokenBlock]":
        """What the batch's rows were tokenised to, when it is done. A row of None has its place, and no tokens."""
        ...


@contextmanager
def count_tokens(
    path: Path, tokenizer: RowTokenizer, limit: int, *, num_processes: int | None = None
) -> Iterator[TokenCounter]:
    """A counter for the batches of ``path``; its processes end with the block, or with this process.

    ``num_processes``: 0 is here; None decides by the file's size and the processors that are ours.
    """
    texts = sample_texts(path)
    if num_processes is None:
        num_processes = _num_processors() if path.stat().st_size >= MIN_BYTES else 0
    if num_processes < 1:
        tokenizer.prove(texts)
        yield _Here(tokenizer, limit)
        return
    order = msgspec.msgpack.encode(Order(recipe=tokenizer.recipe(), limit=limit, texts=texts))
    counter = _Beside(order, min(num_processes, MAX_PROCESSES))
    try:
        yield counter
    finally:
        counter.close()


class TokenTally:
    """Batches on their way through a counter, to a table and to the findings of each."""

    def __init__(self, counter: TokenCounter):
        self._counter = counter
        self._waiting: queue.SimpleQueue[tuple[Batch, Future[TokenBlock]]] = queue.SimpleQueue()
        self._builder = TableBuilder()

    def add(self, batch: Batch) -> None:
        self._waiting.put((batch, self._counter.submit(batch)))

    def due(self) -> Iterator[tuple[Batch, list[Finding]]]:
        """The earliest batches with their token findings, in order, as long as too many are under way."""
        while self._waiting.qsize() > self._counter.depth:
            yield self._finish()

    def rest(self) -> Iterator[tuple[Batch, list[Finding]]]:
        """All that are still under way."""
        while not self._waiting.empty():
            yield self._finish()

    def table(self) -> TokenTable:
        return self._builder.table()

    def _finish(self) -> tuple[Batch, list[Finding]]:
        batch, future = self._waiting.get()
        block = future.result()
        self._builder.absorb(block)
        return batch, block.findings


class _Here:
    depth = 0

    def __init__(self, tokenizer: RowTokenizer, limit: int):
        self._tokenizer = tokenizer
        self._limit = limit

    def submit(self, batch: Batch) -> "Future[TokenBlock]":
        done: Future[TokenBlock] = Future()
        builder = TableBuilder(self._tokenizer, self._limit)
        findings: list[Finding] = []
        for line, raw, row in zip(batch.numbers, batch.raws, batch.rows, strict=True):
            findings += builder.add(row, line, len(raw))
        done.set_result(builder.block(findings))
        return done


class _Beside:
    """A thread for each process: it writes a batch and waits for the answer, so that neither pipe can fill up."""

    def __init__(self, order: bytes, num_processes: int):
        self.depth = 2 * num_processes
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._children = [_start(order) for _ in range(num_processes)]
        for child in self._children:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(num_processes, thread_name_prefix="tokens")

    def submit(self, batch: Batch) -> "Future[TokenBlock]":
        row = next((row for row in batch.rows if row is not None), None)
        raws = [b"" if row is None else raw for row, raw in zip(batch.rows, batch.raws, strict=True)]
        return self._threads.submit(self._ask, _encode(batch.numbers, raws, row))

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            _stop(child)

    def _ask(self, request: bytes) -> TokenBlock:
        child = self._idle.get()
        try:
            write_frame(_pipe(child.stdin), request)
            answer = read_frame(_pipe(child.stdout))
        except BrokenPipeError:
            answer = None
        finally:
            self._idle.put(child)
        if answer is None:
            raise Unavailable(
                f"A process that tokenises ended with status {child.wait()}.",
                code="token_process_died",
                mend="Try again; with too little memory, close other programs.",
            )
        return msgspec.msgpack.decode(answer, type=TokenBlock)


def _encode(numbers: list[int], raws: list[bytes], row: Row | None) -> bytes:
    kind = "chat" if row is None else kind_of(row)
    return msgspec.msgpack.encode(RowBatch(kind=kind, numbers=numbers, raws=raws))


def _start(order: bytes) -> "subprocess.Popen[bytes]":
    child = subprocess.Popen(
        [sys.executable, "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; it ends when its input does
    )
    with suppress(BrokenPipeError):  # said when the first batch is asked for
        write_frame(_pipe(child.stdin), order)
    return child


def _stop(child: "subprocess.Popen[bytes]") -> None:
    with suppress(BrokenPipeError):
        _pipe(child.stdin).close()
    try:
        child.wait(_STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    _pipe(child.stdout).close()


def _pipe(file: IO[bytes] | None) -> IO[bytes]:
    assert file is not None
    return file


def _num_processors() -> int:
    """Those that are ours; one alone would only wait for the other."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ours if ours > 1 else 0

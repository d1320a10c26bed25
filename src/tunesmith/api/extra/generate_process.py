"""The heavy parts of a generation in a process of their own: ``python -m tunesmith.api.extra.generate_process``.

Reading documents and judging candidates compute for seconds; in the server's process they would make every chat wait.
Reads one line of JSON (an ``Order``) from stdin, prints one (``data_process.Message``), and ends with its parent.
"""

import os
import resource
import sys
from pathlib import Path

import msgspec

from tunesmith.api.extra.data_process import Failure, Message, Speaker
from tunesmith.catalog.embedding import is_embedding_installed
from tunesmith.core.errors import TunesmithError
from tunesmith.core.settings import Settings
from tunesmith.core.types import write_json
from tunesmith.data.generate.diagnosis import Doctor
from tunesmith.data.generate.judge import judge_with
from tunesmith.data.generate.sources import read_sources
from tunesmith.serving.engines.child import die_with
from tunesmith.serving.engines.embedding import Embedder

MAX_READING_BYTES = 4 * 2**30
"""Address space for reading: a page of a PDF can ask for as much as it likes."""


class ReadSourcesTask(msgspec.Struct, frozen=True, kw_only=True, tag="read_sources"):
    """The sources are written to ``out``."""

    seeds: list[str]
    documents: list[tuple[str, str]]
    """Paths, with the names that tell their kind."""
    seed: int
    out: str


class JudgeTask(msgspec.Struct, frozen=True, kw_only=True, tag="judge"):
    """The result is a ``Filtered``."""

    folder: str
    limit: int
    home: str
    engine_threads: int


Task = ReadSourcesTask | JudgeTask


class Order(msgspec.Struct, frozen=True, kw_only=True):
    parent_pid: int
    task: Task


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries must not write between our lines
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    die_with(order.parent_pid)
    try:
        message = Message(result=msgspec.Raw(_run(order.task)))
    except TunesmithError as error:
        message = Message(error=_failure(error))
    Speaker(replies).send(message)


def _run(task: Task) -> bytes:
    match task:
        case ReadSourcesTask():
            resource.setrlimit(resource.RLIMIT_AS, (MAX_READING_BYTES, MAX_READING_BYTES))
            documents = [(Path(path), name) for path, name in task.documents]
            write_json(Path(task.out), read_sources(map(Path, task.seeds), documents, task.seed))
            return b"{}"
        case JudgeTask():
            settings = Settings(home=Path(task.home), engine_threads=task.engine_threads)
            with Embedder(settings) as embedder:
                doctor = Doctor(settings, embedder.embed if is_embedding_installed(settings) else None)
                return msgspec.json.encode(judge_with(doctor)(Path(task.folder), task.limit))


def _failure(error: TunesmithError) -> Failure:
    where = str(error).removesuffix(f" {error.mend}") if error.mend else str(error)
    return Failure(kind=type(error).__name__, message=where, code=error.code, param=error.param, mend=error.mend)


if __name__ == "__main__":
    main()

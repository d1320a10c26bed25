"""Work on a data file in a process of its own: ``python -m tunesmith.api.extra.data_process``.

A check or a mend computes for seconds or minutes; in the server's process it would make every chat wait. Reads one line
of JSON (a ``Task``) from stdin and prints lines of JSON (``Message``): progress, then the result or an error. It ends
with its parent.
"""

import os
import sys
import time
from pathlib import Path
from typing import TextIO

import msgspec

from tunesmith.api.extra.kept_findings import FindingWriter
from tunesmith.catalog.embedding import install_embedding_model
from tunesmith.core.errors import TunesmithError, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.data.doctor import check
from tunesmith.data.mend import mend, token_errors
from tunesmith.data.read import Progress
from tunesmith.data.rule import FixName
from tunesmith.data.split_file import split_file
from tunesmith.data.token_cache import TokenCache
from tunesmith.data.tokens import Completions, RowTokenizer
from tunesmith.serving.engines.child import die_with
from tunesmith.serving.engines.embedding import Embedder

REPORT_FILE = "report.json"
PROGRESS_EVERY_S = 0.2


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A model as data sees it."""

    name: str
    base_dir: str
    template_dir: str | None
    limit_tokens: int
    completions: Completions | None

    def tokenizer(self) -> RowTokenizer:
        template_dir = None if self.template_dir is None else Path(self.template_dir)
        return RowTokenizer.from_dir(Path(self.base_dir), template_dir, completions=self.completions)


class CheckTask(msgspec.Struct, frozen=True, kw_only=True, tag="check"):
    """The report and all findings are written into ``out_dir``."""

    path: str
    filename: str
    model: ModelFiles | None
    validation_path: str | None
    out_dir: str
    home: str
    engine_threads: int


class MendTask(msgspec.Struct, frozen=True, kw_only=True, tag="mend"):
    """The result is a ``MendSummary``."""

    path: str
    out: str
    fixes: list[FixName]
    lines: list[int] | None
    model: ModelFiles | None


class SplitTask(msgspec.Struct, frozen=True, kw_only=True, tag="split"):
    """The result is a ``SplitSummary``."""

    path: str
    out_train: str
    out_valid: str
    share: float | None
    count: int | None
    seed: int


Task = CheckTask | MendTask | SplitTask


class Order(msgspec.Struct, frozen=True, kw_only=True):
    parent_pid: int
    task: Task


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of what the process says: a fraction done, or its last word."""

    fraction: float | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: "Failure | None" = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A TunesmithError on its way to the parent; ``kind`` is its class's name."""

    kind: str
    message: str
    code: str | None
    param: str | None
    mend: str | None


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries must not write between our lines
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    die_with(order.parent_pid)
    say = Speaker(replies)
    try:
        say.send(Message(result=msgspec.Raw(run(order.task, say))))
    except TunesmithError as error:
        say.send(Message(error=_failure(error)))


class Speaker:
    """Writes the messages; progress only now and then."""

    def __init__(self, file: TextIO):
        self._file = file
        self._said_at = float("-inf")

    def send(self, message: Message) -> None:
        self._file.write(msgspec.json.encode(message).decode() + "\n")
        self._file.flush()

    def progress(self, done: int, total: int) -> None:
        """``data.read.Progress``: parts done, parts in all."""
        if time.monotonic() - self._said_at >= PROGRESS_EVERY_S:
            self._said_at = time.monotonic()
            self.send(Message(fraction=done / max(total, 1)))


def run(task: Task, say: Speaker) -> bytes:
    """Do the task; its result as JSON."""
    match task:
        case CheckTask():
            return _check(task, say.progress)
        case MendTask():
            errors = token_errors(task.model.tokenizer(), task.model.limit_tokens) if task.model else None
            out = Path(task.out)
            return msgspec.json.encode(
                mend(
                    Path(task.path),
                    out,
                    task.fixes,
                    lines=task.lines,
                    row_errors=errors,
                    must_change=True,
                    progress=say.progress,
                )
            )
        case SplitTask():
            outs = Path(task.out_train), Path(task.out_valid)
            summary = split_file(Path(task.path), *outs, share=task.share, count=task.count, seed=task.seed)
            return msgspec.json.encode(summary)


def _check(task: CheckTask, progress: Progress) -> bytes:
    out = Path(task.out_dir)
    settings = Settings(home=Path(task.home), engine_threads=task.engine_threads)
    with FindingWriter(out) as findings, Embedder(settings) as embedder:
        report = check(
            Path(task.path),
            model=task.model.name if task.model else None,
            tokenizer=task.model.tokenizer() if task.model else None,
            limit_tokens=task.model.limit_tokens if task.model else None,
            validation=task.validation_path,
            embed=embedder.embed if _can_embed(settings) else None,
            sink=findings.add,
            progress=progress,
            settings=settings,
            cache=TokenCache(settings.home),
        )
    named = msgspec.structs.replace(report, filename=task.filename)
    (out / REPORT_FILE).write_bytes(msgspec.json.encode(named))
    return b"{}"


def _can_embed(settings: Settings) -> bool:
    """Whether the embedding model is here, fetched if need be; where nobody can be reached a rule is skipped."""
    try:
        install_embedding_model(settings, lambda _: None, retries=0)
    except Unavailable:
        return False
    return True


def _failure(error: TunesmithError) -> Failure:
    where = str(error).removesuffix(f" {error.mend}") if error.mend else str(error)
    return Failure(kind=type(error).__name__, message=where, code=error.code, param=error.param, mend=error.mend)


if __name__ == "__main__":
    main()

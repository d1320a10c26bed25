"""``candidates.jsonl``: every call and every answer, one line each, written before anything is made of it.

The file only grows. A line that a killed process has half written is cut off at the next start. While a run goes on it
holds the folder's lock, which ends with its process, however that ends.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from tunesmith.core.errors import Conflict, Unavailable
from tunesmith.data.generate.questions import Step

JOURNAL_FILE = "candidates.jsonl"
LOCK_FILE = "run.lock"
CANCEL_FILE = "cancel"
_PATIENCE_S = 1.0
"""A look at the lock (``is_running``) holds it for a moment."""

EndStatus = Literal["succeeded", "failed", "cancelled", "interrupted"]
StoppedBy = Literal["rows", "candidates", "tokens", "cost"]


class GenerationError(msgspec.Struct, frozen=True, kw_only=True):
    code: str | None
    message: str
    param: str | None = None


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """A run begins or goes on. Calls that were asked before and have no answer are lost."""

    at: float


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """Candidates are made up to this number of slots; more follow when too many are dropped."""

    num_slots: int


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="asked"):
    """A try of a call goes out. The numbers are about the most that it can take."""

    slot: int
    step: Step
    prompt_tokens: int
    completion_tokens: int


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    slot: int
    step: Step
    at: float
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    is_estimated: bool = False


class Unanswered(msgspec.Struct, frozen=True, kw_only=True, tag="unanswered"):
    """A try brought no answer. ``is_lost``: it was sent, and the teacher may bill it."""

    slot: int
    step: Step
    at: float
    is_lost: bool


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The teacher gave no answer to this call, and is not asked again; ``rule`` is an id of ``filter.DROP_RULES``."""

    slot: int
    step: Step
    at: float
    rule: str
    what: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_estimated: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    at: float
    status: EndStatus
    stopped_by: StoppedBy | None = None
    error: GenerationError | None = None
    file_id: str | None = None


Event = Started | Planned | Asked | Answered | Unanswered | Refused | Ended

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Journal:
    """The one writer of a generation. Raises Conflict when another has it open."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_generation(folder)
        (folder / CANCEL_FILE).unlink(missing_ok=True)
        path = folder / JOURNAL_FILE
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._descriptor, _whole_bytes(path))

    def append(self, event: Event) -> None:
        """When this returns the line is on the disk: what was paid for is not lost in a power cut.

        Raises Unavailable (``journal_unwritable``) where the disk does not take it; no half of it then stays.
        """
        try:
            self._write_line(msgspec.json.encode(event) + b"\n")
            os.fsync(self._descriptor)
        except OSError as error:
            raise Unavailable(
                f"{JOURNAL_FILE} cannot be written: {error.strerror}.",
                code="journal_unwritable",
                mend="Make room on the disk, and resume: what was answered before is kept.",
            ) from error

    def _write_line(self, line: bytes) -> None:
        """All of it or nothing: a full disk takes the beginning first, and refuses then."""
        start = os.fstat(self._descriptor).st_size
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            os.ftruncate(self._descriptor, start)
            raise

    def close(self) -> None:
        os.close(self._descriptor)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class JournalReader:
    """Reads a journal while it grows: each look gives what is new."""

    def __init__(self, folder: Path):
        self._path = folder / JOURNAL_FILE
        self._offset = 0
        self._num_lines = 0
        self._inode: int | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether what was read is not there any more: the file is another one, or shorter."""
        if not self._path.exists():
            return self._offset > 0
        facts = self._path.stat()
        return self._inode not in (None, facts.st_ino) or facts.st_size < self._offset

    def new_events(self) -> Iterator[Event]:
        """Every whole line that was not read yet, in order. Raises Conflict (``generation_damaged``) at one that is no
        event."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            self._inode = os.fstat(file.fileno()).st_ino
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                self._num_lines += 1
                yield self._decoded(line)

    def _decoded(self, line: bytes) -> Event:
        try:
            return _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self.damage() from None

    def damage(self) -> Conflict:
        """The error to raise for the line that was read last."""
        return Conflict(
            f"Line {self._num_lines} of {self._path.name} cannot be understood: {self._path.parent.name} is damaged.",
            code="generation_damaged",
            mend="Restore the file from a backup, or delete the generation.",
        )


def read_events(folder: Path) -> Iterator[Event]:
    """Every whole line, in order. Raises Conflict where one cannot be understood."""
    return JournalReader(folder).new_events()


def ask_to_cancel(folder: Path) -> None:
    """Leave the wish where the run, in whichever process, looks for it."""
    (folder / CANCEL_FILE).touch(mode=0o600)


def wants_cancel(folder: Path) -> bool:
    return (folder / CANCEL_FILE).exists()


def is_running(folder: Path) -> bool:
    """Whether a living process works on it."""
    path = folder / LOCK_FILE
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_generation(folder: Path) -> int:
    """An open file whose closing frees the generation. Raises Conflict when another has it."""
    path = folder / LOCK_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline_s:
                time.sleep(0.01)
                continue
            os.close(descriptor)
            raise Conflict(
                f"{path.parent.name} is running already.",
                code="generation_running",
                mend="Wait for it, or cancel it first.",
            ) from None
        return descriptor


def _whole_bytes(path: Path) -> int:
    """The length of the file up to its last line end."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 2**16)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0

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

from tunesmith.core.errors import Conflict
from tunesmith.data.generate.questions import Step

JOURNAL_FILE = "candidates.jsonl"
LOCK_FILE = "run.lock"
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
    """A call goes out. The numbers are about the most that it can take."""

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
    num_timeouts: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The teacher gave no answer to this call, and is not asked again; ``rule`` is an id of ``filter.DROP_RULES``."""

    slot: int
    step: Step
    at: float
    rule: str
    what: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    at: float
    status: EndStatus
    stopped_by: StoppedBy | None = None
    error: GenerationError | None = None
    file_id: str | None = None


Event = Started | Planned | Asked | Answered | Refused | Ended

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class Journal:
    """The one writer of a generation. Raises Conflict when another has it open."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / LOCK_FILE)
        path = folder / JOURNAL_FILE
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._descriptor, _whole_bytes(path))

    def append(self, event: Event) -> None:
        """When this returns the line is on the disk: what was paid for is not lost in a power cut."""
        os.write(self._descriptor, msgspec.json.encode(event) + b"\n")
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_events(folder: Path) -> Iterator[Event]:
    """Every whole line, in order."""
    path = folder / JOURNAL_FILE
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _decoder.decode(line)


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


def _locked(path: Path) -> int:
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

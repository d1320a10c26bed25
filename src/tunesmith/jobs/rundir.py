"""The folder of one run, as the server sees it: what it reads of the trainer's files, and the wish it leaves there.

The folder is the truth, the database its index. The trainer writes; the server only adds the specification, the data
and ``control.json``.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tunesmith.core.errors import TrainerError
from tunesmith.core.types import (
    CHECKPOINTS_DIR,
    CONTROL_FILE,
    EVENTS_FILE,
    RESULT_FILE,
    RESULTS_CSV,
    SPEC_FILE,
    TRAINER_LOG,
    Action,
    Control,
    RunResult,
    RunSpec,
    TrainerEvent,
    write_json,
)

TRAIN_FILE = "train.jsonl"
VALID_FILE = "valid.jsonl"
START_DIR = "start"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
FULL_WEIGHTS = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
STATE_FILE = "state.json"
# What training goes on from: the learned weights and their shape.
START_FILES = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, FULL_WEIGHTS, "config.json")
# Most of events.jsonl that one look takes in; the next look takes the rest.
MAX_READ_BYTES = 2**20
LOG_TAIL_BYTES = 4096
LOG_TAIL_LINES = 12

_decode_event = msgspec.json.Decoder(TrainerEvent).decode


class CheckpointState(msgspec.Struct, frozen=True):
    """From a checkpoint's state.json."""

    trained_tokens: int


class LoraShape(msgspec.Struct, frozen=True):
    """From a checkpoint's adapter_config.json (PEFT's format)."""

    r: int
    lora_alpha: float


class RunDir:
    """``path`` is the absolute folder of the run; it need not exist yet."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def train_path(self) -> Path:
        return self.path / TRAIN_FILE

    @property
    def valid_path(self) -> Path:
        return self.path / VALID_FILE

    @property
    def start_path(self) -> Path:
        return self.path / START_DIR

    @property
    def results_csv(self) -> Path:
        return self.path / RESULTS_CSV

    def write_spec(self, spec: RunSpec) -> None:
        write_json(self.path / SPEC_FILE, spec)

    def ask(self, action: Action) -> None:
        """Leave a wish for the trainer, who looks before every micro-batch."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / CONTROL_FILE, Control(action=action))

    def clear_for_start(self) -> None:
        """Remove the old wish and the end of a paused run, before the trainer is started (again)."""
        (self.path / CONTROL_FILE).unlink(missing_ok=True)
        (self.path / RESULT_FILE).unlink(missing_ok=True)

    def has_wish(self) -> bool:
        return (self.path / CONTROL_FILE).exists()

    def read_result(self) -> RunResult | None:
        """How the run ended, or None while it has not. Raises ``TrainerError`` where the file cannot be understood."""
        try:
            return msgspec.json.decode((self.path / RESULT_FILE).read_bytes(), type=RunResult)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise TrainerError(f"{RESULT_FILE} cannot be understood: {error}", code="trainer_error") from error

    def read_events(self, offset_bytes: int) -> tuple[list[TrainerEvent], int]:
        """Whole lines of events.jsonl from ``offset_bytes`` on, and the offset after them.

        An unfinished last line is left for the next look. Raises ``TrainerError`` for a line that is no event.
        """
        try:
            with (self.path / EVENTS_FILE).open("rb") as file:
                file.seek(offset_bytes)
                data = file.read(MAX_READ_BYTES)
        except FileNotFoundError:
            return [], offset_bytes
        whole = data[: data.rfind(b"\n") + 1]
        try:
            events = [_decode_event(line) for line in whole.splitlines() if line]
        except msgspec.MsgspecError as error:
            raise TrainerError(f"{EVENTS_FILE} holds a line that is no event: {error}", code="trainer_error") from error
        return events, offset_bytes + len(whole)

    def read_trained_tokens(self) -> int | None:
        """What the newest checkpoint was trained on, in tokens; None without a checkpoint."""
        for folder in sorted((self.path / CHECKPOINTS_DIR).glob("step-*"), reverse=True):
            state = folder / STATE_FILE
            if state.exists():
                return msgspec.json.decode(state.read_bytes(), type=CheckpointState).trained_tokens
        return None

    def read_trainer_seconds(self) -> float:
        """How long trainers have worked here, by the times in events.jsonl: from each one's first line to its last."""
        total, first, last = 0, None, 0
        for event in self._read_all_events():
            if first is None or event.data.get("phase") == "loading":
                total += 0 if first is None else last - first
                first = event.created_at
            last = event.created_at
        return float(total + (0 if first is None else last - first))

    def _read_all_events(self) -> Iterator[TrainerEvent]:
        """Up to the first line that is no event, or not whole."""
        try:
            with (self.path / EVENTS_FILE).open("rb") as file:
                yield from (_decode_event(line) for line in file)
        except (FileNotFoundError, msgspec.MsgspecError):
            return

    def read_log_tail(self) -> str:
        """The last lines that the trainer printed."""
        try:
            with (self.path / TRAINER_LOG).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    def has_checkpoints(self) -> bool:
        return any((self.path / CHECKPOINTS_DIR).glob("step-*"))


def start_kind(checkpoint_dir: Path) -> Literal["lora", "full"] | None:
    """How the weights in a checkpoint's folder were trained; None where there are none."""
    if (checkpoint_dir / ADAPTER_WEIGHTS).exists():
        return "lora"
    return "full" if (checkpoint_dir / FULL_WEIGHTS).exists() else None


def read_lora_shape(checkpoint_dir: Path) -> LoraShape:
    return msgspec.json.decode((checkpoint_dir / ADAPTER_CONFIG).read_bytes(), type=LoraShape)

"""Lines that a run writes for its readers. Every line is written once, also when the trainer dies and starts again."""

import os
import time
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from tunesmith.core.types import (
    EVENTS_FILE,
    METRICS_FILE,
    ROWS_FILE,
    CheckpointData,
    Level,
    MetricLine,
    RowLoss,
    TrainerEvent,
)

T = TypeVar("T")
EventType = Literal["message", "phase", "metrics", "checkpoint", "done"]


class RunLog:
    """Appends to events.jsonl, metrics.jsonl and rows.jsonl of a run directory; one process at a time.

    A run that was killed repeats the steps since its last checkpoint, with equal results. What its readers have
    already seen of those steps is not written again.
    """

    def __init__(self, run_dir: Path):
        self._events = run_dir / EVENTS_FILE
        self._metrics = run_dir / METRICS_FILE
        self._rows = run_dir / ROWS_FILE
        for file in (self._events, self._metrics, self._rows):
            _drop_unfinished_line(file)
        events = _read_lines(self._events, TrainerEvent)
        self._seq = len(events)
        self._seen = {key for key in map(_key, events) if key is not None}
        self._last_metric_step = max((line.step for line in _read_lines(self._metrics, MetricLine)), default=0)

    def message(self, text: str, *, level: Level = "info", **data: Any) -> None:
        self._emit("message", text, data, level)

    def phase(self, phase: str) -> None:
        self._emit("phase", f"Phase: {phase}", {"phase": phase})

    def metrics(self, line: MetricLine) -> None:
        """A step's numbers, to metrics.jsonl and as an event."""
        if line.step > self._last_metric_step:
            _append(self._metrics, msgspec.json.encode(line) + b"\n")
            self._last_metric_step = line.step
        self._emit("metrics", f"Step {line.step}/{line.total_steps}", msgspec.to_builtins(line))

    def checkpoint(self, data: CheckpointData) -> None:
        self._emit("checkpoint", f"Checkpoint created at step {data.step}", msgspec.to_builtins(data))

    def done(self, status: str) -> None:
        self._emit("done", f"Run {status}", {"status": status})

    def row_losses(self, rows: list[RowLoss]) -> None:
        _append(self._rows, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))

    def rewind_rows(self, step: int) -> None:
        """Forget row losses after ``step``: they will be measured again."""
        kept = [row for row in _read_lines(self._rows, RowLoss) if row.step <= step]
        temporary = self._rows.with_suffix(".tmp")
        temporary.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in kept))
        temporary.replace(self._rows)

    def read_metrics(self) -> list[MetricLine]:
        return _read_lines(self._metrics, MetricLine)

    def _emit(self, type: EventType, text: str, data: dict[str, Any], level: Level = "info") -> None:
        event = TrainerEvent(
            seq=self._seq + 1, created_at=int(time.time()), level=level, type=type, message=text, data=data
        )
        key = _key(event)
        if key is not None and key in self._seen:
            return
        _append(self._events, msgspec.json.encode(event) + b"\n")
        self._seq += 1
        if key is not None:
            self._seen.add(key)


def _key(event: TrainerEvent) -> tuple[str, int] | None:
    """What makes an event of a repeated step the same event; None for events that may come again."""
    if event.type in ("metrics", "checkpoint"):
        return event.type, event.data["step"]
    return None


def _read_lines(file: Path, type: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(type)
    return [decoder.decode(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def _append(file: Path, lines: bytes) -> None:
    with file.open("ab") as out:
        out.write(lines)


def _drop_unfinished_line(file: Path) -> None:
    if file.exists():
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)

"""What past runs left in their folders: their steps, their result, and what their start and their epochs' ends took."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from tunesmith.core.types import (
    EVENTS_FILE,
    METRICS_FILE,
    RESULT_FILE,
    SPEC_FILE,
    MetricLine,
    RunResult,
    RunSpec,
    TrainerEvent,
)

MAX_RUNS = 8
MAX_LINES = 400
"""The newest of a run."""
T = TypeVar("T")


@dataclass(frozen=True)
class PastRun:
    """``lines`` are at least one; None where the folder does not tell, as of a run that was interrupted."""

    spec: RunSpec
    lines: list[MetricLine]
    result: RunResult | None
    start_s: float | None
    """From the trainer's start to the first step, in whole seconds as ``epoch_end_s``."""
    epoch_end_s: float | None


def past_runs(runs_dir: Path, like: RunSpec) -> list[PastRun]:
    """Runs of the same model, kind of training, number type and threads, newest first.

    A folder that is being written, or is older than this format, is no past run.
    """
    files = sorted(runs_dir.glob(f"*/{METRICS_FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    found = []
    for file in files:
        run = _read_run(file.parent, like)
        if run is not None:
            found.append(run)
        if len(found) == MAX_RUNS:
            break
    return found


def _read_run(folder: Path, like: RunSpec) -> PastRun | None:
    try:
        spec = msgspec.json.decode((folder / SPEC_FILE).read_bytes(), type=RunSpec)
        if _kind(spec) != _kind(like):
            return None
        lines = _read_lines(folder / METRICS_FILE, MetricLine)[-MAX_LINES:]
        events = _read_lines(folder / EVENTS_FILE, TrainerEvent)
        result_file = folder / RESULT_FILE
        result = msgspec.json.decode(result_file.read_bytes(), type=RunResult) if result_file.exists() else None
    except (OSError, msgspec.MsgspecError):
        return None
    if not lines:
        return None
    return PastRun(spec, lines, result, *_edges(spec, lines, events, result))


def _kind(spec: RunSpec) -> tuple[object, ...]:
    return spec.base_model, spec.training, spec.dtype, spec.num_threads


def _read_lines(file: Path, kind: type[T]) -> list[T]:
    """Whole lines; the last one may be half written."""
    data = file.read_bytes()
    return msgspec.json.Decoder(kind).decode_lines(data[: data.rfind(b"\n") + 1])


def _edges(
    spec: RunSpec, lines: list[MetricLine], events: list[TrainerEvent], result: RunResult | None
) -> tuple[float | None, float | None]:
    """(seconds before the first step, seconds at an epoch's end) of a run that was never interrupted."""
    phases = [event for event in events if event.type == "phase"]
    loading = [event.created_at for event in phases if event.data.get("phase") == "loading"]
    training = [event.created_at for event in phases if event.data.get("phase") == "training"]
    if len(loading) != 1 or len(training) != 1:
        return None, None
    start_s = float(training[0] - loading[0])
    if result is None or result.status != "succeeded" or len(lines) != spec.total_steps:
        return start_s, None
    rest_s = events[-1].created_at - training[0] - sum(line.step_s + line.eval_s for line in lines)
    return start_s, max(0.0, rest_s / spec.n_epochs)

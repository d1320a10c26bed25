"""How fast this machine trains a model: learned from its past runs, or guessed from a matrix product, and so called.

A step takes an overhead, and time in proportion to the distinct tokens it computes (prefixes that rows share are
computed once, so tokens of the rows would mislead). Both are fitted to ``metrics.jsonl`` of the newest runs. Starting,
and what an epoch's end takes, come from the same runs' ``events.jsonl``, whose times are whole seconds.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

import msgspec
import numpy as np

from tunesmith.core.settings import Settings
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
from tunesmith.metering.machine import matmul_rate

MAX_RUNS = 8
MAX_LINES = 400
"""The newest of a run."""
MIN_SPREAD = 1.3
"""Steps must differ by this factor in tokens before an overhead can be told from the rate."""
EVAL_SHARE = 0.35
"""Time of a token that is only measured, as a share of one that is learned from."""
FASTER, SLOWER = 0.8, 1.5
FASTER_FEW, SLOWER_FEW, FEW_RUNS = 0.5, 2.0, 3
"""Around what past runs took: the machine is not always equally busy, and a few runs have not seen how much."""
FLOPS_PER_PARAMETER = {"lora": 4, "full": 6}
"""For a token: 2 forward, 2 backward for the activations, 2 more for the weights where they are learned."""
PROBE_BEST, PROBE_LIKELY, PROBE_WORST = 1.2, 0.5, 0.12
"""Shares of the probe's rate that real runs reach; above 1 where the trainer computes in bfloat16."""
START_S, EPOCH_END_S = 8.0, 1.0

Basis = Literal["past runs", "probe"]
T = TypeVar("T")


@dataclass(frozen=True)
class PastPeak:
    """How much memory a past run took."""

    spec: RunSpec
    dtype: str
    step_tokens: int
    """Distinct tokens of its largest step."""
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """``fastest`` and ``slowest`` are factors on the time."""

    basis: Basis
    detail: str
    tokens_per_s: float
    """Distinct tokens learned from."""
    step_overhead_s: float
    start_s: float
    epoch_end_s: float
    fastest: float
    slowest: float
    dtype: str
    """What runs compute in here; float32 where that is not known, the larger one."""
    num_runs: int
    peaks: tuple["PastPeak", ...] = ()

    def seconds(self, *, computed_tokens: int, num_steps: int, eval_tokens: int, num_epochs: int) -> float:
        """Likely seconds of a run, without time in the queue."""
        tokens = computed_tokens + EVAL_SHARE * eval_tokens
        return (
            self.start_s + tokens / self.tokens_per_s + num_steps * self.step_overhead_s + num_epochs * self.epoch_end_s
        )


@dataclass(frozen=True)
class _PastRun:
    spec: RunSpec
    lines: list[MetricLine]
    result: RunResult | None
    start_s: float | None
    epoch_end_s: float | None


def learn_rate(settings: Settings, spec: RunSpec, parameters: int) -> Rate:
    """The rate for a run like ``spec``: from runs of the same model, kind of training, number type and threads."""
    runs = _past_runs(settings.runs_dir, spec)
    return _learned(runs) if runs else _probed(spec, parameters)


def _learned(runs: list[_PastRun]) -> Rate:
    points = [_points(run.lines) for run in runs]
    per_token_s, overhead_s = _fit(np.concatenate(points))
    ratios = [float(p[:, 1].sum() / (per_token_s * p[:, 0] + overhead_s).sum()) for p in points]
    num_steps = sum(len(p) for p in points)
    starts = [run.start_s for run in runs if run.start_s is not None]
    ends = [run.epoch_end_s for run in runs if run.epoch_end_s is not None]
    results = [run.result for run in runs if run.result is not None and run.result.dtype]
    return Rate(
        basis="past runs",
        detail=_describe(num_steps, len(runs), per_token_s, overhead_s),
        tokens_per_s=1 / per_token_s,
        step_overhead_s=overhead_s,
        start_s=median(starts) if starts else START_S,
        epoch_end_s=median(ends) if ends else EPOCH_END_S,
        fastest=(FASTER if len(runs) >= FEW_RUNS else FASTER_FEW) * min(1.0, *ratios),
        slowest=(SLOWER if len(runs) >= FEW_RUNS else SLOWER_FEW) * max(1.0, *ratios),
        dtype=results[0].dtype if results else _unproven_dtype(runs[0].spec),
        num_runs=len(runs),
        peaks=tuple(
            PastPeak(
                run.spec,
                run.result.dtype,
                max(line.num_computed_tokens for line in run.lines),
                run.result.peak_memory_bytes,
            )
            for run in runs
            if run.result is not None and run.result.dtype and run.result.peak_memory_bytes
        ),
    )


def _describe(num_steps: int, num_runs: int, per_token_s: float, overhead_s: float) -> str:
    runs = "a past run" if num_runs == 1 else f"{num_runs} past runs"
    overhead = f" and {overhead_s:.2f} s a step" if overhead_s else ""
    return f"{num_steps:,} steps of {runs} here: {1 / per_token_s:,.0f} distinct tokens/s{overhead}"


def _probed(spec: RunSpec, parameters: int) -> Rate:
    flops = matmul_rate()
    per_token = FLOPS_PER_PARAMETER[spec.training] * parameters
    likely = PROBE_LIKELY * flops / per_token
    return Rate(
        basis="probe",
        detail=f"a guess: no past run of this model here, and a matrix product runs at {flops / 1e9:,.0f} GFLOP/s",
        tokens_per_s=likely,
        step_overhead_s=0.0,
        start_s=START_S,
        epoch_end_s=EPOCH_END_S,
        fastest=PROBE_LIKELY / PROBE_BEST,
        slowest=PROBE_LIKELY / PROBE_WORST,
        dtype=_unproven_dtype(spec),
        num_runs=0,
    )


def _unproven_dtype(spec: RunSpec) -> str:
    return "float32" if spec.dtype == "auto" else spec.dtype


def _points(lines: list[MetricLine]) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """(distinct tokens, seconds) of each step but the first of the run, which warms up."""
    kept = [line for line in lines if line.step > 1] or lines
    return np.array([(line.num_computed_tokens, line.step_s) for line in kept])


def _fit(points: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> tuple[float, float]:
    """(seconds a token, seconds a step): least squares of the relative error; no overhead where none can be told."""
    tokens, seconds = points[:, 0], np.maximum(points[:, 1], 1e-6)
    low, high = np.percentile(tokens, [5, 95])
    if high >= MIN_SPREAD * low:
        weighted = np.stack([tokens / seconds, 1 / seconds], axis=1)
        (per_token, overhead), *_ = np.linalg.lstsq(weighted, np.ones(len(tokens)), rcond=None)
        if per_token > 0 and overhead >= 0:
            return float(per_token), float(overhead)
    return float(np.median(seconds / np.maximum(tokens, 1))), 0.0


def _past_runs(runs_dir: Path, like: RunSpec) -> list[_PastRun]:
    """Newest first; a folder that is being written, or is older than this format, is no past run."""
    files = sorted(runs_dir.glob(f"*/{METRICS_FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    found = []
    for file in files:
        run = _read_run(file.parent, like)
        if run is not None:
            found.append(run)
        if len(found) == MAX_RUNS:
            break
    return found


def _read_run(folder: Path, like: RunSpec) -> _PastRun | None:
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
    return _PastRun(spec, lines, result, *_edges(spec, lines, events, result))


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

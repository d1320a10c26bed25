"""How fast this machine trains a model: learned from its past runs, or guessed from a matrix product, and so called.

A step takes an overhead, and time in proportion to the distinct tokens it computes (prefixes that rows share are
computed once, so tokens of the rows would mislead). Both are fitted to ``metrics.jsonl`` of the newest runs. Few
steps, or much smaller or larger ones, say little: until past runs are enough to go by, they mend the guess as far as
they go, and its range stays within ours. Starting, and what an epoch's end takes, come from the same runs'
``events.jsonl``.
"""

from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeAlias

import numpy as np

from tunesmith.core.settings import Settings
from tunesmith.core.types import MetricLine, RunSpec
from tunesmith.metering.history import PastRun, past_runs
from tunesmith.metering.machine import matmul_rate

ENOUGH_TOKENS = 10_000
"""Distinct tokens of past runs that are enough to go by without the guess."""
MIN_SPREAD = 1.3
"""Steps must differ by this factor in tokens before an overhead can be told from the rate."""
OVERHEAD_TOKENS = 125
"""As long as it takes to compute so many tokens, where it cannot be told: docs/lab/LOG.md, idle machine."""
EVAL_SHARE = 0.35
"""Time of a token that is only measured, as a share of one that is learned from."""
FASTER, SLOWER = 0.8, 1.5
FASTER_FEW, SLOWER_FEW, FEW_RUNS = 0.5, 2.0, 3
"""Around what past runs took: the machine is not always equally busy, and a few runs have not seen how much."""
FLOPS_PER_PARAMETER = {"lora": 4, "full": 6}
"""For a token: 2 forward, 2 backward for the activations, 2 more for the weights where they are learned."""
PROBE_SHARE = 0.75
"""Of the probe's rate, that tokens are computed at; may be above 1 where the trainer computes in bfloat16."""
PROBE_FASTEST, PROBE_SLOWEST = 0.4, 5.0
START_S, EPOCH_END_S = 8.0, 1.0

Basis = Literal["past runs", "probe and past runs", "probe"]
Points: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.float64]]"
Numbers: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float64]]"


@dataclass(frozen=True)
class PastPeak:
    """How much memory a past run took."""

    spec: RunSpec
    dtype: str
    step_tokens: int
    """Distinct tokens of its largest step."""
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class RunWork:
    """What a run computes. ``computed_tokens`` are distinct ones, learned from."""

    computed_tokens: int
    num_steps: int
    eval_tokens: int
    num_epochs: int


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
    guess: "Rate | None" = None
    """What was known without past runs, while they are not enough to go by."""

    def seconds(self, work: RunWork) -> float:
        """Likely seconds of a run, without time in the queue."""
        tokens = work.computed_tokens + EVAL_SHARE * work.eval_tokens
        steps_s = tokens / self.tokens_per_s + work.num_steps * self.step_overhead_s
        return self.start_s + steps_s + work.num_epochs * self.epoch_end_s

    def range_s(self, work: RunWork) -> tuple[float, float]:
        """(fewest, most) seconds, around ``seconds``."""
        likely = self.seconds(work)
        low, high = likely * self.fastest, likely * self.slowest
        if self.guess is None:
            return low, high
        guess_low, guess_high = self.guess.range_s(work)
        return min(low, guess_low), max(high, guess_high)


def learn_rate(settings: Settings, spec: RunSpec, parameters: int) -> Rate:
    """The rate for a run like ``spec``: from runs of the same model, kind of training, number type and threads."""
    guess = _guess(spec, parameters)
    runs = past_runs(settings.runs_dir, spec)
    return _learned(spec, runs, guess) if runs else guess


def _guess(spec: RunSpec, parameters: int) -> Rate:
    flops = matmul_rate()
    tokens_per_s = PROBE_SHARE * flops / (FLOPS_PER_PARAMETER[spec.training] * parameters)
    return Rate(
        basis="probe",
        detail=f"a guess: no past run of this model here, and {_product(flops)}",
        tokens_per_s=tokens_per_s,
        step_overhead_s=OVERHEAD_TOKENS / tokens_per_s,
        start_s=START_S,
        epoch_end_s=EPOCH_END_S,
        fastest=PROBE_FASTEST,
        slowest=PROBE_SLOWEST,
        dtype=_unproven_dtype(spec),
        num_runs=0,
    )


def _learned(spec: RunSpec, runs: list[PastRun], guess: Rate) -> Rate:
    points = [_points(run.lines) for run in runs]
    fit = _fit(np.concatenate(points))
    weights = [min(1.0, _telling_tokens(run.lines, spec) / ENOUGH_TOKENS) for run in runs]
    weight = min(1.0, sum(weights))
    ratios = [_ratio(p, fit) ** w for p, w in zip(points, weights, strict=True)]
    num_steps = sum(len(p) for p in points)
    starts = [run.start_s for run in runs if run.start_s is not None]
    ends = [run.epoch_end_s for run in runs if run.epoch_end_s is not None]
    results = [run.result for run in runs if run.result is not None and run.result.dtype]
    per_token_s, overhead_s = _blend(guess, fit, weight)
    return Rate(
        basis="past runs" if weight == 1 else "probe and past runs",
        detail=_describe(num_steps, len(runs), fit) if weight == 1 else _describe_few(num_steps, len(runs)),
        tokens_per_s=1 / per_token_s,
        step_overhead_s=overhead_s,
        start_s=median(starts) if starts else START_S,
        epoch_end_s=median(ends) if ends else EPOCH_END_S,
        fastest=(FASTER if len(runs) >= FEW_RUNS else FASTER_FEW) * min(1.0, *ratios),
        slowest=(SLOWER if len(runs) >= FEW_RUNS else SLOWER_FEW) * max(1.0, *ratios),
        dtype=results[0].dtype if results else _unproven_dtype(runs[0].spec),
        num_runs=len(runs),
        peaks=_peaks(runs),
        guess=None if weight == 1 else guess,
    )


def _blend(guess: Rate, fit: tuple[float, float], weight: float) -> tuple[float, float]:
    """(seconds a token, seconds a step): the rate by its logarithm, since a guess is wrong by factors."""
    per_token_s, overhead_s = fit
    return (
        (1 / guess.tokens_per_s) ** (1 - weight) * per_token_s**weight,
        (1 - weight) * guess.step_overhead_s + weight * overhead_s,
    )


def _telling_tokens(lines: list[MetricLine], spec: RunSpec) -> float:
    """Distinct tokens, those of steps of another size than ``spec``'s in proportion.

    A smaller step is mostly overhead, a larger one hides it.
    """
    step_tokens = max(1.0, spec.num_train_tokens / max(1, spec.num_train_rows) * spec.batch_size)
    sizes = [max(1, line.num_tokens) / step_tokens for line in _warm(lines)]
    return sum(line.num_computed_tokens * min(size, 1 / size) for line, size in zip(_warm(lines), sizes, strict=True))


def _peaks(runs: list[PastRun]) -> tuple[PastPeak, ...]:
    return tuple(
        PastPeak(
            run.spec,
            run.result.dtype,
            max(line.num_computed_tokens for line in run.lines),
            run.result.peak_memory_bytes,
        )
        for run in runs
        if run.result is not None and run.result.dtype and run.result.peak_memory_bytes
    )


def _describe(num_steps: int, num_runs: int, fit: tuple[float, float]) -> str:
    overhead = f" and {fit[1]:.2f} s a step" if fit[1] else ""
    return f"{_steps(num_steps, num_runs)} here: {1 / fit[0]:,.0f} distinct tokens/s{overhead}"


def _describe_few(num_steps: int, num_runs: int) -> str:
    past = f"{_steps(num_steps, num_runs)} here, too few or too unlike to go by"
    return f"a guess, mended by {past}; {_product(matmul_rate())}"


def _steps(num_steps: int, num_runs: int) -> str:
    runs = "a past run" if num_runs == 1 else f"{num_runs} past runs"
    return f"{num_steps:,} {'step' if num_steps == 1 else 'steps'} of {runs}"


def _product(flops: float) -> str:
    return f"a matrix product runs at {flops / 1e9:,.0f} GFLOP/s"


def _unproven_dtype(spec: RunSpec) -> str:
    return "float32" if spec.dtype == "auto" else spec.dtype


def _warm(lines: list[MetricLine]) -> list[MetricLine]:
    """All steps but the first of the run, which warms up; that one where there is no other."""
    return [line for line in lines if line.step > 1] or lines


def _points(lines: list[MetricLine]) -> Points:
    """(distinct tokens, seconds) of each step."""
    return np.array([(max(1, line.num_computed_tokens), max(1e-6, line.step_s)) for line in _warm(lines)])


def _ratio(points: Points, fit: tuple[float, float]) -> float:
    """What steps took over what the fit says."""
    return float(points[:, 1].sum() / (fit[0] * points[:, 0] + fit[1]).sum())


def _fit(points: Points) -> tuple[float, float]:
    """(seconds a token, seconds a step): least squares of the relative error, each step weighed by its tokens.

    Where steps are too alike, or a larger one took less, the overhead is taken for so many tokens.
    """
    tokens, seconds = points[:, 0], points[:, 1]
    low, high = np.percentile(tokens, [5, 95])
    if high >= MIN_SPREAD * low:
        weights = np.sqrt(tokens)
        weighted = np.stack([tokens / seconds, 1 / seconds], axis=1) * weights[:, None]
        (per_token, overhead), *_ = np.linalg.lstsq(weighted, weights, rcond=None)
        if per_token > 0 and overhead >= 0:
            return float(per_token), float(overhead)
    per_token_s = _weighted_median(seconds / (tokens + OVERHEAD_TOKENS), tokens)
    return per_token_s, OVERHEAD_TOKENS * per_token_s


def _weighted_median(values: Numbers, weights: Numbers) -> float:
    order = np.argsort(values)
    upto = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(upto, upto[-1] / 2)])

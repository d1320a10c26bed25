"""A machine's rate from the files that runs leave behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from past_runs import event, line, spec, write_run
from recorded_steps import DEMO_STEPS, SMALL_STEPS, TWELVE_STEPS

from tunesmith.core.settings import Settings
from tunesmith.core.types import MetricLine, RunResult
from tunesmith.metering.rates import OVERHEAD_TOKENS, Rate, RunWork, learn_rate

PARAMETERS = 135_000_000
DEMO = {"num_train_rows": 300, "num_train_tokens": 33_656, "batch_size": 4, "n_epochs": 4, "total_steps": 300}
DEMO_WORK = RunWork(computed_tokens=73_768, num_steps=300, eval_tokens=0, num_epochs=4)
DEMO_TOOK_S = 289


def learn(home: Path, **changed: Any) -> Rate:
    return learn_rate(Settings(home=home), spec(**changed), PARAMETERS)


def write_recorded(home: Path, name: str, steps: list[tuple[int, int, float]]) -> None:
    lines = [line(n, distinct, s, num_tokens=tokens) for n, (tokens, distinct, s) in enumerate(steps, start=1)]
    write_run(home, name, lines)


def alike(count: int, seconds: float) -> list[MetricLine]:
    """Steps of 1,000 distinct tokens, as large as those of the run asked about; 11 of them are enough to go by."""
    return [line(n, 1000, seconds, num_tokens=400) for n in range(1, count + 1)]


def test_a_tiny_job_leaves_the_guess_as_it_was(tmp_path: Path) -> None:
    """It took 28 ms a token, and nearly all of that was overhead: as a rate, 35 minutes for the demo's 5."""
    guess = learn(tmp_path, **DEMO)
    write_recorded(tmp_path, "a", TWELVE_STEPS)
    mended = learn(tmp_path, **DEMO)
    assert (guess.basis, mended.basis) == ("probe", "probe and past runs")
    assert "a guess, mended by 11 steps of a past run here" in mended.detail
    assert mended.seconds(DEMO_WORK) == pytest.approx(guess.seconds(DEMO_WORK), rel=0.3)
    assert_within(guess.range_s(DEMO_WORK), mended.range_s(DEMO_WORK))


def test_the_demos_first_epoch_foretells_the_demo_whatever_else_ran_here(tmp_path: Path) -> None:
    write_recorded(tmp_path, "a", DEMO_STEPS)
    for name, steps in [("b", TWELVE_STEPS), ("c", SMALL_STEPS)]:
        rate = learn(tmp_path, **DEMO)
        low, high = rate.range_s(DEMO_WORK)
        assert rate.basis == "past runs"
        assert rate.seconds(DEMO_WORK) == pytest.approx(DEMO_TOOK_S, rel=0.2)
        assert low < DEMO_TOOK_S < high < 2.5 * DEMO_TOOK_S
        write_recorded(tmp_path, name, steps)
    both = learn(tmp_path, **DEMO)
    assert both.seconds(DEMO_WORK) == pytest.approx(DEMO_TOOK_S, rel=0.35)
    assert both.range_s(DEMO_WORK)[1] < 4 * DEMO_TOOK_S


def test_more_history_moves_further_from_the_guess(tmp_path: Path) -> None:
    """The machine turns out to be twenty times as slow as guessed."""
    guess = learn(tmp_path)
    seconds = 20 * (1000 / guess.tokens_per_s + guess.step_overhead_s)
    rates = []
    for count in (2, 5, 8, 12):
        write_run(tmp_path, str(count), alike(count, seconds))
        rates.append(learn(tmp_path).tokens_per_s / guess.tokens_per_s)
        (tmp_path / "runs" / str(count)).rename(tmp_path / str(count))
    assert rates == sorted(rates, reverse=True)
    assert 0.5 < rates[0] < 1
    assert rates[-1] == pytest.approx(1 / 20)


@pytest.mark.parametrize("step_tokens", [20, 40_000])
def test_steps_of_another_size_are_not_enough_to_go_by(tmp_path: Path, step_tokens: int) -> None:
    write_run(tmp_path, "a", alike(12, 2.0))
    assert learn(tmp_path, batch_size=4, num_train_rows=100, num_train_tokens=10_000).basis == "past runs"
    other = learn(tmp_path, batch_size=4, num_train_rows=100, num_train_tokens=25 * step_tokens)
    assert other.basis == "probe and past runs"


def assert_within(inner: tuple[float, float], outer: tuple[float, float]) -> None:
    assert outer[0] <= inner[0] < inner[1] <= outer[1]


def test_rate_and_overhead_are_told_apart_where_steps_differ(tmp_path: Path) -> None:
    """500 distinct tokens a second and a quarter of a second a step; the first step warms up and does not count."""
    sizes = [300, 500, 1000, 1500, 2000] * 3
    steps = [line(2 + n, t, 0.25 + t / 500, num_tokens=400) for n, t in enumerate(sizes)]
    write_run(tmp_path, "a", [line(1, 100, 60.0), *steps])
    rate = learn(tmp_path)
    assert (rate.basis, rate.num_runs) == ("past runs", 1)
    assert rate.tokens_per_s == pytest.approx(500)
    assert rate.step_overhead_s == pytest.approx(0.25)
    assert "500 distinct tokens/s and 0.25 s a step" in rate.detail
    work = RunWork(computed_tokens=10_000, num_steps=8, eval_tokens=0, num_epochs=0)
    assert rate.seconds(work) == pytest.approx(20 + 2 + rate.start_s)
    assert rate.seconds(replace(work, eval_tokens=1_000)) > rate.seconds(work)


def test_steps_of_one_size_have_the_usual_overhead(tmp_path: Path) -> None:
    """Two of them were disturbed."""
    write_run(tmp_path, "a", [line(n, 1000, 4.5 if n < 12 else 40.0, num_tokens=400) for n in range(1, 14)])
    rate = learn(tmp_path)
    assert rate.tokens_per_s == pytest.approx((1000 + OVERHEAD_TOKENS) / 4.5)
    assert 1000 / rate.tokens_per_s + rate.step_overhead_s == pytest.approx(4.5)


def test_a_smaller_step_that_took_longer_gives_no_negative_rate(tmp_path: Path) -> None:
    write_run(tmp_path, "a", [line(n, t, 1000 / t) for n, t in enumerate([100, 200, 500, 1000] * 9, start=2)])
    rate = learn(tmp_path)
    assert 100 < rate.tokens_per_s < 2000
    assert rate.step_overhead_s > 0


def test_runs_that_disagree_widen_the_range(tmp_path: Path) -> None:
    write_run(tmp_path, "a", alike(14, 2.0))
    alone = learn(tmp_path)
    write_run(tmp_path, "b", alike(14, 8.0))
    both = learn(tmp_path)
    assert both.num_runs == 2
    assert both.slowest / both.fastest > alone.slowest / alone.fastest


@pytest.mark.parametrize(
    "changed",
    [{"base_model": "other"}, {"training": "full"}, {"dtype": "float32"}, {"num_threads": 1}],
)
def test_runs_of_another_kind_teach_nothing(tmp_path: Path, changed: dict[str, Any]) -> None:
    write_run(tmp_path, "a", alike(14, 2.0))
    assert learn(tmp_path).basis == "past runs"
    assert learn(tmp_path, **changed).basis == "probe"


def test_without_past_runs_a_wide_range_from_a_probe_that_says_so(tmp_path: Path) -> None:
    rate = learn(tmp_path)
    assert rate.basis == "probe"
    assert "guess" in rate.detail
    assert rate.slowest / rate.fastest >= 8
    assert rate.dtype == "float32"
    assert learn(tmp_path, dtype="bfloat16").dtype == "bfloat16"
    assert learn(tmp_path, training="full").tokens_per_s < rate.tokens_per_s


def test_start_and_epoch_ends_come_from_the_events(tmp_path: Path) -> None:
    """Six seconds to load; 30 in all after that, of which steps took 16, evaluations 4, and two epochs' ends 5 each."""
    lines = [line(n, 1000, 4.0, eval_s=1.0) for n in range(1, 5)]
    events = [event(1, 100, "phase", phase="loading"), event(2, 106, "phase", phase="training"), event(3, 136, "done")]
    result = RunResult(status="succeeded", step=4, trained_tokens=1, peak_memory_bytes=7, dtype="bfloat16")
    write_run(tmp_path, "a", lines, events, result)
    rate = learn(tmp_path)
    assert (rate.start_s, rate.epoch_end_s) == (6.0, 5.0)
    assert rate.dtype == "bfloat16"
    (peak,) = rate.peaks
    assert (peak.step_tokens, peak.memory_bytes, peak.dtype) == (1000, 7, "bfloat16")


def test_an_interrupted_run_tells_only_of_its_steps(tmp_path: Path) -> None:
    events = [
        event(seq, at, "phase", phase=phase)
        for seq, (at, phase) in enumerate([(0, "loading"), (5, "training"), (900, "loading"), (905, "training")], 1)
    ]
    interrupted = write_run(tmp_path, "a", alike(14, 4.5), events)
    rate = learn(tmp_path)
    assert rate.tokens_per_s == pytest.approx(250)
    assert rate.start_s < 60
    (interrupted / "metrics.jsonl").write_bytes((interrupted / "metrics.jsonl").read_bytes() + b'{"step": 5, "tot')
    assert learn(tmp_path) == rate, "half a line is not read"


def test_folders_that_are_no_runs_are_passed_over(tmp_path: Path) -> None:
    write_run(tmp_path, "empty", [])
    broken = write_run(tmp_path, "broken", [line(n, 1000, 4.0) for n in range(1, 5)])
    (broken / "spec.json").write_text("{}")
    bare = tmp_path / "runs" / "bare"
    bare.mkdir()
    (bare / "metrics.jsonl").write_bytes(b"")
    assert learn(tmp_path).basis == "probe"

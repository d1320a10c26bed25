"""A machine's rate from the files that runs leave behind."""

from pathlib import Path
from typing import Any

import pytest
from past_runs import event, line, spec, write_run

from tunesmith.core.settings import Settings
from tunesmith.core.types import RunResult
from tunesmith.metering.rates import Rate, learn_rate

PARAMETERS = 135_000_000


def learn(home: Path, **changed: Any) -> Rate:
    return learn_rate(Settings(home=home), spec(**changed), PARAMETERS)


def test_rate_and_overhead_are_told_apart_where_steps_differ(tmp_path: Path) -> None:
    """500 distinct tokens a second and a quarter of a second a step; the first step warms up and does not count."""
    sizes = [300, 500, 1000, 1500, 2000]
    write_run(tmp_path, "a", [line(1, 100, 60.0)] + [line(2 + n, t, 0.25 + t / 500) for n, t in enumerate(sizes)])
    rate = learn(tmp_path)
    assert (rate.basis, rate.num_runs) == ("past runs", 1)
    assert rate.tokens_per_s == pytest.approx(500)
    assert rate.step_overhead_s == pytest.approx(0.25)
    assert "500 distinct tokens/s and 0.25 s a step" in rate.detail
    seconds = rate.seconds(computed_tokens=10_000, num_steps=8, eval_tokens=0, num_epochs=0)
    assert seconds == pytest.approx(20 + 2 + rate.start_s)
    assert rate.seconds(computed_tokens=10_000, num_steps=8, eval_tokens=1_000, num_epochs=0) > seconds


def test_steps_of_one_size_give_a_rate_without_overhead(tmp_path: Path) -> None:
    write_run(tmp_path, "a", [line(n, 1000, 4.0 if n < 6 else 40.0) for n in range(1, 8)])
    rate = learn(tmp_path)
    assert (rate.tokens_per_s, rate.step_overhead_s) == (pytest.approx(250), 0.0)


def test_a_smaller_step_that_took_longer_gives_no_negative_rate(tmp_path: Path) -> None:
    write_run(tmp_path, "a", [line(n, t, 1000 / t) for n, t in enumerate([100, 200, 500, 1000], start=2)])
    rate = learn(tmp_path)
    assert rate.tokens_per_s > 0
    assert rate.step_overhead_s == 0


def test_runs_that_disagree_widen_the_range(tmp_path: Path) -> None:
    write_run(tmp_path, "a", [line(n, 1000, 2.0) for n in range(1, 6)])
    alone = learn(tmp_path)
    write_run(tmp_path, "b", [line(n, 1000, 8.0) for n in range(1, 6)])
    both = learn(tmp_path)
    assert both.num_runs == 2
    assert both.slowest / both.fastest > alone.slowest / alone.fastest


@pytest.mark.parametrize(
    "changed",
    [{"base_model": "other"}, {"training": "full"}, {"dtype": "float32"}, {"num_threads": 1}],
)
def test_runs_of_another_kind_teach_nothing(tmp_path: Path, changed: dict[str, Any]) -> None:
    write_run(tmp_path, "a", [line(n, 1000, 2.0) for n in range(1, 6)])
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
    interrupted = write_run(tmp_path, "a", [line(n, 1000, 4.0) for n in range(1, 5)], events)
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

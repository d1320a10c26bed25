"""The trainer as a process: killed, paused, cancelled, terminated, doubled. Every run is a real one."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file

import tiny
from tunesmith.core.types import MetricLine, RowLoss, RunResult, TrainerEvent

LONG = {"n_epochs": 40, "eval_every_steps": 5}  # 240 steps, a checkpoint every 6


def start(run_dir: Path, *prefix: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, *(prefix or ("-m", "tunesmith.trainer")), str(run_dir)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes], status: int = 0) -> None:
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == status, stderr.decode()[-2000:]


def lines(file: Path, kind: type) -> list[Any]:
    return [msgspec.json.decode(line, type=kind) for line in file.read_bytes().splitlines()]


def result(run_dir: Path) -> RunResult:
    return msgspec.json.decode((run_dir / "result.json").read_bytes(), type=RunResult)


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.005)


def steps_done(run_dir: Path) -> int:
    file = run_dir / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def last_weights(run_dir: Path) -> bytes:
    return sorted((run_dir / "checkpoints").glob("step-*"))[-1].joinpath("adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole_run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 240 steps."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    tiny.make_run(run_dir, tiny_base, **LONG)
    finish(start(run_dir))
    return run_dir


def assert_same_run(run_dir: Path, whole_run: Path) -> None:
    """Bit for bit the same weights, the same numbers of every step, and no line twice or missing."""
    assert result(run_dir).status == "succeeded"
    assert last_weights(run_dir) == last_weights(whole_run)
    mine, theirs = (lines(folder / "metrics.jsonl", MetricLine) for folder in (run_dir, whole_run))
    assert [(m.step, m.train_loss, m.grad_norm, m.full_valid_loss) for m in mine] == [
        (m.step, m.train_loss, m.grad_norm, m.full_valid_loss) for m in theirs
    ]
    events = lines(run_dir / "events.jsonl", TrainerEvent)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    for kind in ("metrics", "checkpoint"):
        steps = [event.data["step"] for event in events if event.type == kind]
        assert steps == [e.data["step"] for e in lines(whole_run / "events.jsonl", TrainerEvent) if e.type == kind]
    assert sorted(lines(run_dir / "rows.jsonl", RowLoss), key=str) == sorted(
        lines(whole_run / "rows.jsonl", RowLoss), key=str
    )
    assert (run_dir / "results.csv").read_bytes() == (whole_run / "results.csv").read_bytes()
    assert result(run_dir).trained_tokens == result(whole_run).trained_tokens


@pytest.mark.parametrize("round_number", range(3))
def test_killed_at_a_random_step_it_goes_on_bit_by_bit(
    round_number: int, tiny_base: Path, whole_run: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, **LONG)
    for _ in range(2):
        process = start(run_dir)
        goal = steps_done(run_dir) + random.randint(1, 60)
        wait_until(lambda goal=goal: steps_done(run_dir) >= goal)
        process.send_signal(signal.SIGKILL)
        finish(process, -signal.SIGKILL)
        assert not (run_dir / "result.json").exists()
    finish(start(run_dir))
    assert_same_run(run_dir, whole_run)


def test_terminated_it_saves_and_goes_on(tiny_base: Path, whole_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, **LONG)
    process = start(run_dir)
    wait_until(lambda: steps_done(run_dir) >= 20)
    process.terminate()
    finish(process, 143)
    done = steps_done(run_dir)
    assert (run_dir / "checkpoints" / f"step-{done:06d}").exists()
    finish(start(run_dir))
    assert last_weights(run_dir) == last_weights(whole_run)


def test_paused_it_has_a_checkpoint_and_goes_on(tiny_base: Path, whole_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, **LONG)
    process = start(run_dir)
    wait_until(lambda: steps_done(run_dir) >= 10)
    (run_dir / "control.json").write_text('{"action":"pause"}')
    finish(process)
    paused = result(run_dir)
    assert paused.status == "paused"
    assert (run_dir / "checkpoints" / f"step-{paused.step:06d}" / "adapter_config.json").exists()
    (run_dir / "control.json").unlink()
    (run_dir / "result.json").unlink()
    finish(start(run_dir))
    assert last_weights(run_dir) == last_weights(whole_run)
    assert [m.step for m in lines(run_dir / "metrics.jsonl", MetricLine)] == list(range(1, 241))


def test_paused_while_behind_its_own_log_it_still_saves(tiny_base: Path, tmp_path: Path) -> None:
    """Killed before its first checkpoint and started again, it repeats steps that its log has; a pause saves."""
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, num_rows=400, batch_size=1, n_epochs=1, eval_every_steps=400)
    process = start(run_dir)
    wait_until(lambda: steps_done(run_dir) >= 250)
    process.kill()
    finish(process, -signal.SIGKILL)
    before = steps_done(run_dir)
    process = start(run_dir)
    wait_until(lambda: (run_dir / "events.jsonl").read_text().count("Phase: training") == 2)
    time.sleep(0.2)  # some steps, which nothing shows while they repeat the log's
    (run_dir / "control.json").write_text('{"action":"pause"}')
    finish(process)
    paused = result(run_dir)
    assert 0 < paused.step < before, "the run was to be paused before it had caught up"
    assert (run_dir / "checkpoints" / f"step-{paused.step:06d}").exists()


def test_cancelled_it_stops_within_a_step(tiny_base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, **{**LONG, "n_epochs": 2000})
    process = start(run_dir)
    wait_until(lambda: steps_done(run_dir) >= 5)
    (run_dir / "control.json").write_text('{"action":"cancel"}')
    before = steps_done(run_dir)
    finish(process)
    assert result(run_dir).status == "cancelled"
    assert result(run_dir).step - before <= 2, "one that was under way, and one between the count and the word"


def test_a_second_trainer_keeps_out(tiny_base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, **{**LONG, "n_epochs": 2000})
    first = start(run_dir)
    wait_until(lambda: steps_done(run_dir) >= 1)
    finish(start(run_dir), 75)
    assert first.poll() is None
    first.kill()
    finish(first, -signal.SIGKILL)


def test_two_processes_give_the_curve_of_one(tiny_base: Path, tmp_path: Path) -> None:
    curves = []
    for name, prefix in (
        ("one", ()),
        ("two", ("-m", "torch.distributed.run", "--nproc-per-node=2", "--module", "tunesmith.trainer")),
    ):
        run_dir = tmp_path / name
        tiny.make_run(run_dir, tiny_base, n_epochs=5)
        finish(start(run_dir, *prefix))
        curves.append([(m.train_loss, m.full_valid_loss or 0.0) for m in lines(run_dir / "metrics.jsonl", MetricLine)])
    one, two = curves
    assert len(one) == len(two) == 30
    for single, double in zip(one, two, strict=True):
        assert double == pytest.approx(single, rel=1e-5)


def test_checkpoints_kept_are_the_best_and_the_last_three(tiny_base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, n_epochs=12, learning_rate=0.05, answer="red", valid_answer="owl")
    finish(start(run_dir))
    kept = sorted(int(folder.name.removeprefix("step-")) for folder in (run_dir / "checkpoints").iterdir())
    best = result(run_dir).best_step
    metrics = {m.step: m.full_valid_loss for m in lines(run_dir / "metrics.jsonl", MetricLine) if m.full_valid_loss}
    assert best == min(metrics, key=metrics.__getitem__)
    assert best < 60, "the run was meant to drift away from its validation rows"
    assert kept == [best, 60, 66, 72]


def test_full_fine_tuning_learns_and_resumes(tiny_base: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("whole", "paused"):
        run_dir = tmp_path / name
        tiny.make_run(run_dir, tiny_base, training="full", learning_rate=0.001, n_epochs=20)
        process = start(run_dir)
        if name == "paused":
            wait_until(lambda run_dir=run_dir: steps_done(run_dir) >= 7)
            process.kill()
            finish(process, -signal.SIGKILL)
            process = start(run_dir)
        finish(process)
        newest = sorted((run_dir / "checkpoints").iterdir())[-1]
        weights.append(load_file(newest / "model.safetensors"))
        assert (newest / "config.json").exists()
        metrics = lines(run_dir / "metrics.jsonl", MetricLine)
        assert metrics[-1].train_loss < metrics[0].train_loss - 0.5
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_no_validation_file_and_a_split(tiny_base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, num_valid=0, validation_split=0.25, num_rows=24)
    finish(start(run_dir))
    held_out = {row.line for row in lines(run_dir / "rows.jsonl", RowLoss) if row.split == "valid"}
    trained = {row.line for row in lines(run_dir / "rows.jsonl", RowLoss) if row.split == "train"}
    assert len(held_out) == 6
    assert held_out.isdisjoint(trained)
    assert held_out | trained == set(range(1, 25))
    messages = [event.message for event in lines(run_dir / "events.jsonl", TrainerEvent)]
    assert "Held out 6 of 24 rows for validation" in messages


def test_without_validation_nothing_is_held_out(tiny_base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, num_valid=0)
    finish(start(run_dir))
    rows = lines(run_dir / "rows.jsonl", RowLoss)
    assert {row.line for row in rows} == set(range(1, 25))
    assert {row.split for row in rows} == {"train"}
    assert all(m.full_valid_loss is None for m in lines(run_dir / "metrics.jsonl", MetricLine))
    assert result(run_dir).best_step is None


def test_changed_data_and_bad_rows_fail_the_run(tiny_base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base)
    with (run_dir / "train.jsonl").open("ab") as file:
        file.write(b"{}\n")
    finish(start(run_dir))
    error = result(run_dir).error
    assert error is not None
    assert error.code == "data_changed"


def test_a_loss_that_is_not_a_number_fails_with_a_mend(tiny_base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny.make_run(run_dir, tiny_base, learning_rate=1e30, warmup_steps=0)
    finish(start(run_dir))
    error = result(run_dir).error
    assert error is not None
    assert error.code == "loss_diverged"
    assert "learning_rate_multiplier" in error.message

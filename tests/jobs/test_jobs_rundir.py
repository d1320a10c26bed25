"""What the server reads of a run's files."""

import json
from pathlib import Path

import pytest

from tunesmith.core.errors import TrainerError
from tunesmith.core.types import RunResult, write_json
from tunesmith.jobs.names import checkpoint_name, tuned_model_name
from tunesmith.jobs.rundir import MAX_READ_BYTES, RunDir


def event(seq: int, message: str = "m") -> bytes:
    return json.dumps({"seq": seq, "created_at": 1, "type": "message", "message": message}).encode() + b"\n"


def test_events_are_read_from_an_offset_and_only_whole_lines(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.read_events(0) == ([], 0)
    file = tmp_path / "events.jsonl"
    file.write_bytes(event(1) + event(2)[:10])
    events, offset = run_dir.read_events(0)
    assert [e.seq for e in events] == [1]
    assert offset == len(event(1))
    assert run_dir.read_events(offset) == ([], offset)
    file.write_bytes(event(1) + event(2) + event(3))
    events, offset = run_dir.read_events(offset)
    assert [e.seq for e in events] == [2, 3]
    assert offset == len(file.read_bytes())


def test_a_long_file_is_read_in_pieces_without_a_gap(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    (tmp_path / "events.jsonl").write_bytes(b"".join(event(seq, "x" * 1000) for seq in range(1, 2501)))
    assert (tmp_path / "events.jsonl").stat().st_size > 2 * MAX_READ_BYTES
    seen, offset, reads = [], 0, 0
    while True:
        events, offset = run_dir.read_events(offset)
        if not events:
            break
        reads += 1
        seen += [e.seq for e in events]
    assert seen == list(range(1, 2501))
    assert reads == 3


def test_nonsense_is_an_error_of_the_trainer(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    (tmp_path / "events.jsonl").write_bytes(b"nonsense\n")
    with pytest.raises(TrainerError):
        run_dir.read_events(0)
    (tmp_path / "result.json").write_bytes(b'{"status": "strange"}')
    with pytest.raises(TrainerError):
        run_dir.read_result()


def test_wishes_and_results(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "new")
    assert run_dir.read_result() is None
    assert not run_dir.has_wish()
    run_dir.ask("cancel")
    assert json.loads((run_dir.path / "control.json").read_bytes()) == {"action": "cancel"}
    write_json(run_dir.path / "result.json", RunResult(status="paused", step=3, trained_tokens=9))
    result = run_dir.read_result()
    assert result is not None
    assert (result.status, result.step) == ("paused", 3)
    run_dir.clear_for_start()
    assert run_dir.read_result() is None
    assert not run_dir.has_wish()


def test_the_log_tail_is_short(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.read_log_tail() == ""
    (tmp_path / "trainer.log").write_text("\n".join(f"line {number}" for number in range(5000)))
    lines = run_dir.read_log_tail().splitlines()
    assert lines[-1] == "line 4999"
    assert len(lines) == 12


def test_names_have_the_shape_that_clients_know() -> None:
    assert tuned_model_name("base", "org", None, "ftjob-1").startswith("ft:base:org::")
    name = tuned_model_name("base", "org", "desk", "ftjob-1")
    assert name == tuned_model_name("base", "org", "desk", "ftjob-1")
    first = checkpoint_name("base", "org", "desk", "ftjob-1", 10)
    second = checkpoint_name("base", "org", "desk", "ftjob-1", 20)
    assert first.endswith(":ckpt-step-10")
    # Each checkpoint has eight characters of its own.
    assert len({name.split(":")[4], first.split(":")[4], second.split(":")[4]}) == 3

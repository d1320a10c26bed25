"""``tunesmith data`` against a recorded teacher: the rows, Ctrl-C, kill -9 and going on."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import CommandLine

from recorded_teacher import KEY, Fault, RecordedTeacher, error_body, recorded_teacher

DEADLINE_S = 60


@pytest.fixture
def teacher() -> Iterator[RecordedTeacher]:
    with recorded_teacher() as running:
        yield running


def arguments(teacher: RecordedTeacher, out: Path, *more: str) -> list[str]:
    plan = ["--rows", "4", "--topics", "bread", "bicycles", "--concurrency", "2", "--out", str(out)]
    return ["data", "generate", "--teacher-url", teacher.base_url, "--teacher-model", "m", *plan, *more]


def generation_id(line: CommandLine) -> str:
    (folder,) = (Path(line.variables["TUNESMITH_HOME"]) / "generations").iterdir()
    return folder.name


def wait_for_calls(teacher: RecordedTeacher, number: int) -> None:
    """Until so many calls have been answered."""
    deadline_s = time.monotonic() + DEADLINE_S
    while sum(teacher.answered.values()) < number:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def wait_for_bodies(teacher: RecordedTeacher, number: int) -> None:
    """Until so many calls have been sent."""
    deadline_s = time.monotonic() + DEADLINE_S
    while len(teacher.bodies) < number:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@contextmanager
def started(line: CommandLine, words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while the test does something to it; a test that fails leaves none behind."""
    process = line.start(*words)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_data_set_is_written_with_a_summary(offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    variables = {"MY_KEY": KEY}
    done = offline.run(*arguments(teacher, out, "--teacher-key-env", "MY_KEY"), **variables)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 rows written" in done.stdout
    assert "cut_off" in done.stdout
    rows = [json.loads(line)["messages"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4
    assert all(said == f"Bearer {KEY}" for said in teacher.authorizations)
    home = Path(offline.variables["TUNESMITH_HOME"])
    assert all(KEY.encode() not in path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert KEY not in done.stdout + done.stderr
    shown = offline.output("data", "show", generation_id(offline))
    assert "succeeded" in shown
    assert generation_id(offline) in offline.output("data", "list")


def test_seeds_and_documents_are_used(offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path) -> None:
    seeds, document = tmp_path / "seeds.jsonl", tmp_path / "mill.md"
    messages = [{"role": "user", "content": "Who mills?"}, {"role": "assistant", "content": "The miller."}]
    seeds.write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
    document.write_text(
        "# Mill\n\n" + "The mill grinds rye on Mondays and wheat on all other days. " * 3, encoding="utf-8"
    )
    out = tmp_path / "rows.jsonl"
    plan = ["--rows", "1", "--seeds", str(seeds), "--documents", str(document), "--out", str(out), "--json"]
    url = ["--teacher-url", teacher.base_url, "--teacher-model", "m"]
    report = json.loads(offline.output("data", "generate", *url, *plan))
    assert (report["num_rows"], report["num_seed_rows"], report["num_passages"]) == (1, 1, 1)
    first = teacher.bodies[0]["messages"][-1]["content"]
    assert "grinds rye" in first
    assert "Who mills?" in first


def test_after_kill_9_nothing_answered_is_asked_again(
    offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    teacher.delay_s = 0.15
    with started(offline, arguments(teacher, out)):
        wait_for_calls(teacher, 6)
    assert not out.exists()
    name = generation_id(offline)
    (listed,) = json.loads(offline.output("data", "list", "--json"))
    assert listed["status"] == "interrupted"
    journal = Path(offline.variables["TUNESMITH_HOME"]) / "generations" / name / "candidates.jsonl"
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    num_answered = sum(event["type"] == "answered" for event in events)
    assert num_answered >= 4
    teacher.delay_s = 0.0
    report = json.loads(offline.output("data", "resume", name, "--json"))
    assert report["num_rows"] == 4
    assert len(out.read_text(encoding="utf-8").splitlines()) == 4
    # A call that was written down and not yet sent when the process was killed counts as lost too.
    num_lost = report["usage"]["num_lost_calls"]
    assert sum(count - 1 for count in teacher.asked.values()) <= num_lost <= 2
    assert report["usage"]["num_calls"] <= len(teacher.bodies) <= report["usage"]["num_calls"] + num_lost


def test_ctrl_c_waits_for_the_calls_in_flight_and_says_how_to_go_on(
    offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path
) -> None:
    teacher.delay_s = 0.15
    with started(offline, arguments(teacher, tmp_path / "rows.jsonl")) as process:
        wait_for_calls(teacher, 3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    go_on = said.partition("Go on with: tunesmith ")[2].split()
    assert go_on == ["data", "resume", generation_id(offline)]
    teacher.delay_s = 0.0
    report = json.loads(offline.output(*go_on, "--json"))
    assert report["usage"]["num_lost_calls"] == 0
    assert max(teacher.asked.values()) == 1


def test_a_second_ctrl_c_cuts_them_off(offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path) -> None:
    teacher.delay_s = 30.0
    with started(offline, arguments(teacher, tmp_path / "rows.jsonl")) as process:
        wait_for_bodies(teacher, 2)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "Waiting for the calls" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "Go on with" in said
    (listed,) = json.loads(offline.output("data", "list", "--json"))
    assert listed["usage"]["num_lost_calls"] == 2


def test_a_refused_key_is_one_line_and_the_run_goes_on_with_another(
    offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path
) -> None:
    teacher.faults.extend([Fault(401, error_body("Incorrect API key provided"))] * 2)
    done = offline.run(*arguments(teacher, tmp_path / "rows.jsonl"))
    assert done.returncode == 1
    (problem,) = [line for line in done.stderr.splitlines() if line.startswith("tunesmith:")]
    assert "does not accept the key" in problem
    assert f"tunesmith data resume {generation_id(offline)}" in problem
    teacher.faults.clear()
    assert offline.run("data", "resume", generation_id(offline)).returncode == 0


def test_a_cap_ends_it_and_a_higher_one_goes_on(offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    cap = ["--max-answer-tokens", "160", "--max-tokens", "1500"]
    done = offline.run(*arguments(teacher, out, *cap))
    assert done.returncode == 0, done.stderr
    assert "--max-tokens" in done.stderr
    first = out.read_text(encoding="utf-8").splitlines()
    again = offline.run("data", "resume", generation_id(offline))
    assert again.returncode == 1
    assert "Raise the cap" in again.stderr
    offline.output("data", "resume", generation_id(offline), "--max-tokens", "100000")
    assert out.read_text(encoding="utf-8").splitlines()[: len(first)] == first
    assert len(out.read_text(encoding="utf-8").splitlines()) == 4
    assert max(teacher.asked.values()) == 1


def test_the_own_servers_prices_hold_where_it_is_the_teacher(
    offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path
) -> None:
    plan = ["--rows", "2", "--topics", "bread", "--out", str(tmp_path / "rows.jsonl"), "--max-cost", "0.5"]
    words = ["data", "generate", "--teacher-model", "m", *plan]
    done = offline.run(*words, TUNESMITH_BASE_URL=teacher.base_url)
    assert done.returncode == 0, done.stderr
    (listed,) = json.loads(offline.output("data", "list", "--json"))
    assert listed["request"]["prices"]["currency"]
    assert 0 < float(listed["usage"]["cost"]) < 0.5
    assert isinstance(listed["usage"]["cost"], str)
    assert f"{listed['usage']['cost']} {listed['request']['prices']['currency']} spent" in done.stdout


def test_a_generation_is_deleted(offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    teacher.delay_s = 0.15
    with started(offline, arguments(teacher, out)):
        wait_for_bodies(teacher, 1)
        assert "is running already" in refused(offline, "data", "delete", generation_id(offline))
    teacher.delay_s = 0.0
    name = generation_id(offline)
    offline.output("data", "resume", name)
    assert name in offline.output("data", "delete", name)
    assert "no generation" in refused(offline, "data", "show", name)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 4


def test_a_resume_that_is_refused_changes_no_cap(
    offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path
) -> None:
    teacher.delay_s = 0.3
    with started(offline, arguments(teacher, tmp_path / "rows.jsonl", "--max-tokens", "9000")):
        wait_for_bodies(teacher, 1)
        name = generation_id(offline)
        assert "is running already" in refused(offline, "data", "resume", name, "--max-tokens", "100000")
        home = Path(offline.variables["TUNESMITH_HOME"])
        kept = json.loads((home / "generations" / name / "request.json").read_text(encoding="utf-8"))
        assert kept["caps"]["max_tokens"] == 9000


def refused(line: CommandLine, *words: str) -> str:
    done: subprocess.CompletedProcess[str] = line.run(*words)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def refused_by_form(line: CommandLine, *words: str) -> str:
    done: subprocess.CompletedProcess[str] = line.run(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_is_wrong_is_said_before_anything_is_asked(
    offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    scan = tmp_path / "notes.docx"
    scan.write_text("x")
    assert "NO_SUCH_KEY is not set" in refused(offline, *arguments(teacher, out, "--teacher-key-env", "NO_SUCH_KEY"))
    assert "There is no file" in refused(offline, *arguments(teacher, out, "--seeds", str(tmp_path / "none.jsonl")))
    assert "neither text" in refused(offline, *arguments(teacher, out, "--documents", str(scan)))
    assert "needs the teacher's prices" in refused(offline, *arguments(teacher, out, "--max-cost", "1"))
    assert "no room for one candidate" in refused(offline, *arguments(teacher, out, "--max-tokens", "50"))
    assert "much" in refused_by_form(offline, *arguments(teacher, out, "--max-cost", "much"))
    assert "no amount" in refused(offline, *arguments(teacher, out, "--price-in", "nan"))
    assert "no generation" in refused(offline, "data", "resume", "gen-none")
    assert "no generation" in refused(offline, "data", "show", "../..")
    out.write_text("mine")
    assert "exists already" in refused(offline, *arguments(teacher, out))
    assert out.read_text() == "mine"
    assert teacher.bodies == []
    assert not (Path(offline.variables["TUNESMITH_HOME"]) / "generations").exists()


def test_the_state_is_for_its_owner_alone(offline: CommandLine, teacher: RecordedTeacher, tmp_path: Path) -> None:
    offline.output(*arguments(teacher, tmp_path / "rows.jsonl"))
    folder = Path(offline.variables["TUNESMITH_HOME"]) / "generations" / generation_id(offline)
    assert folder.stat().st_mode & 0o077 == 0

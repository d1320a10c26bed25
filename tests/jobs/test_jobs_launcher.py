"""Trainer processes: alive, dead, killed; whoever started them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_world import wait_for

from tunesmith.jobs.launchers.local import LocalLauncher

SHOW = """
import fcntl, json, os, sys, time
lock = open(sys.argv[1] + "/trainer.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
facts = {"pid": os.getpid(), "sid": os.getsid(0), "cwd": os.getcwd(), "env": dict(os.environ)}
with open(sys.argv[1] + "/facts.tmp", "w") as file:
    json.dump(facts, file)
os.rename(sys.argv[1] + "/facts.tmp", sys.argv[1] + "/facts.json")
print("started", flush=True)
time.sleep(float(os.environ.get("SHOW_S", "60")))
sys.exit(int(os.environ.get("SHOW_STATUS", "0")))
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[LocalLauncher]:
    launcher = LocalLauncher(2, (sys.executable, "-c", SHOW))
    yield launcher
    launcher.kill(tmp_path)
    wait_for(lambda: not launcher.is_alive(tmp_path))


def facts(run_dir: Path) -> dict[str, object]:
    wait_for((run_dir / "facts.json").exists)
    return json.loads((run_dir / "facts.json").read_bytes())


def test_a_trainer_has_a_session_a_log_and_a_clean_environment(
    launcher: LocalLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "surprise.py")
    monkeypatch.setenv("TUNESMITH_API_KEY", "sk-secret")
    (tmp_path / "trainer.log").write_text("earlier\n")
    launcher.start(tmp_path)
    seen = facts(tmp_path)
    environment = seen["env"]
    assert isinstance(environment, dict)
    assert seen["sid"] == seen["pid"] != os.getsid(0)
    assert seen["cwd"] == str(tmp_path)
    assert environment["OMP_NUM_THREADS"] == "2"
    assert "PYTHONSTARTUP" not in environment
    assert "TUNESMITH_API_KEY" not in environment
    wait_for(lambda: (tmp_path / "trainer.log").read_text() == "earlier\nstarted\n")


def test_alive_until_it_ends_and_then_reaped(
    launcher: LocalLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOW_S", "0")
    monkeypatch.setenv("SHOW_STATUS", "7")
    assert not launcher.is_alive(tmp_path)
    launcher.start(tmp_path)
    wait_for(lambda: not launcher.is_alive(tmp_path))
    assert launcher.exit_status(tmp_path) == 7
    process_id = facts(tmp_path)["pid"]
    assert isinstance(process_id, int)
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)
    launcher.forget(tmp_path)
    assert launcher.exit_status(tmp_path) is None


def test_killed_by_a_launcher_that_did_not_start_it(launcher: LocalLauncher, tmp_path: Path) -> None:
    launcher.start(tmp_path)
    facts(tmp_path)
    other = LocalLauncher(2, (sys.executable, "-c", SHOW))
    assert other.is_alive(tmp_path)
    other.kill(tmp_path)
    wait_for(lambda: not other.is_alive(tmp_path) and not launcher.is_alive(tmp_path))
    assert launcher.exit_status(tmp_path) == -9
    other.kill(tmp_path)


def test_a_lock_held_by_anything_means_alive(launcher: LocalLauncher, tmp_path: Path) -> None:
    code = SHOW.replace("facts.json", "other.json")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.DEVNULL) as holder:
        wait_for((tmp_path / "other.json").exists)
        assert launcher.is_alive(tmp_path)
        holder.kill()
    wait_for(lambda: not launcher.is_alive(tmp_path))

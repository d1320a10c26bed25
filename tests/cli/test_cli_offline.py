"""The command line without a server: help, misuse, and what it says when nobody answers."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine, environment

HEAVY = ("torch", "transformers", "httpx", "fastapi", "uvicorn", "sqlalchemy", "tokenizers", "numpy", "rich.progress")


def test_help_lists_every_command(offline: CommandLine) -> None:
    said = offline.output("--help")
    for command in ("serve", "doctor", "files", "jobs", "models", "chat"):
        assert f" {command} " in said
    assert "\x1b" not in said


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from tunesmith.cli.main import run; status = run(['--help']);"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]; sys.exit(repr(loaded) if loaded else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nonsense"], 2, "tunesmith --help"),
        (["jobs", "nonsense"], 2, "tunesmith jobs --help"),
        (["jobs", "show"], 2, "tunesmith jobs show --help"),
        (["jobs", "list", "--limit", "many"], 2, "--limit"),
        (["jobs", "create", "missing.jsonl"], 1, "missing.jsonl"),
        (["jobs", "list", "--metadata", "oops"], 1, "key=value"),
        (["files", "upload", "missing.jsonl"], 1, "missing.jsonl"),
        (["models", "pull", "nobody-knows-it"], 1, "nobody-knows-it"),
        (["chat", "any-model", "--json"], 1, "needs a message"),
        (["serve", "--port", "99999"], 1, "99999"),
        (["serve", "--port", "-1"], 1, "port"),
    ],
)
def test_misuse_is_one_line_with_a_status(offline: CommandLine, arguments: list[str], status: int, words: str) -> None:
    done = offline.run(*arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("tunesmith: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["files", "list"], ["jobs", "watch", "ftjob-x"], ["models", "list"], ["chat", "a-model", "Hello"]],
)
def test_refused_connection_says_how_to_start_the_server(offline: CommandLine, arguments: list[str]) -> None:
    done = offline.run(*arguments)
    assert done.returncode == 1
    assert "http://127.0.0.1:9/v1" in done.stderr
    assert "tunesmith serve" in done.stderr
    assert done.stderr.count("\n") == 1


def test_unknown_setting_is_refused(offline: CommandLine) -> None:
    done = offline.run("files", "list", TUNESMITH_HOEM="elsewhere")
    assert done.returncode == 1
    assert "TUNESMITH_HOEM" in done.stderr


def test_bad_address_is_explained(offline: CommandLine) -> None:
    done = offline.run("files", "list", TUNESMITH_BASE_URL="127.0.0.1:8321")
    assert done.returncode == 1
    assert "TUNESMITH_BASE_URL" in done.stderr


def test_doctor_names_every_part_and_what_to_do(offline: CommandLine) -> None:
    done = offline.run("doctor", "--json")
    report = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert set(findings) == {"python", "torch", "memory", "disk", "home", "engine", "models", "database", "server"}
    assert findings["torch"]["verdict"] in ("ok", "warn")
    assert findings["engine"]["verdict"] == "ok"
    assert findings["models"] == {
        "name": "models",
        "verdict": "warn",
        "found": "no base model yet",
        "mend": "tunesmith models pull; the first serve does it too.",
    }
    assert findings["server"]["verdict"] == "warn"
    assert all(finding["mend"] for finding in report["findings"] if finding["verdict"] != "ok")
    assert (done.returncode == 0) == report["ok"]


def test_doctor_fails_without_a_place_to_write(offline: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("not a folder")
    done = offline.run("doctor", TUNESMITH_HOME=str(tmp_path / "a-file" / "home"))
    assert done.returncode == 1
    assert "home\tfail" in done.stdout
    assert "Not ready" in done.stdout


def test_doctor_fails_when_the_database_does_not_answer(offline: CommandLine) -> None:
    nobody = "postgresql+psycopg://someone:secret@127.0.0.1:9/none?connect_timeout=2"
    done = offline.run("doctor", "--json", TUNESMITH_DATABASE_URL=nobody)
    finding = next(finding for finding in json.loads(done.stdout)["findings"] if finding["name"] == "database")
    assert finding["verdict"] == "fail"
    assert done.returncode == 1
    assert "secret" not in done.stdout


def test_serve_says_when_the_port_is_taken(offline: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = offline.run("serve", "--port", str(port))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert done.stdout == ""


def test_serve_says_when_its_home_cannot_be_made(offline: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("not a folder")
    done = offline.run("serve", "--port", "0", TUNESMITH_HOME=str(tmp_path / "a-file" / "home"))
    assert done.returncode == 1
    assert str(tmp_path / "a-file") in done.stderr
    assert done.stderr.count("\n") == 1


def test_serve_says_when_the_database_does_not_answer(offline: CommandLine) -> None:
    nobody = "postgresql+psycopg://someone:secret@127.0.0.1:9/none?connect_timeout=2"
    done = offline.run("serve", "--port", "0", TUNESMITH_DATABASE_URL=nobody)
    assert done.returncode == 1
    assert "database does not answer" in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1

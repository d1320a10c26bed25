"""The command line against a real server, from the first upload to a chat with the tuned model."""

import json
import signal
import stat
import time
from pathlib import Path

import pytest
from command_line import DEADLINE_S, CommandLine, ServeProcess

from tunesmith.catalog.models import embedded_model

BASE = embedded_model().id


def until_status(online: CommandLine, job_id: str, statuses: tuple[str, ...]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while (job := json.loads(online.output("jobs", "show", job_id, "--json")))["status"] not in statuses:
        assert time.monotonic() < deadline_s, job
        time.sleep(0.1)


def test_serve_announces_address_home_and_first_key(serve_process: ServeProcess) -> None:
    key_file = serve_process.home / "first_key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key = key_file.read_text().strip()
    assert key.startswith("sk-")
    assert serve_process.base_url.startswith("http://127.0.0.1:")
    assert f"First API key: {key}" in serve_process.announced
    assert f"Everything lies in {serve_process.home}" in serve_process.announced


def test_a_wrong_key_is_one_clear_line(online: CommandLine) -> None:
    done = online.run("files", "list", TUNESMITH_API_KEY="sk-wrong")
    assert done.returncode == 1
    assert "TUNESMITH_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1


def test_files_go_up_and_come_back(online: CommandLine, training_file: Path, tmp_path: Path) -> None:
    file = json.loads(online.output("files", "upload", str(training_file), "--json"))
    assert file["object"] == "file"
    assert file["bytes"] == training_file.stat().st_size
    listed = json.loads(online.output("files", "list", "--purpose", "fine-tune", "--json"))
    assert file["id"] in [one["id"] for one in listed["data"]]
    assert "cases.jsonl" in online.output("files", "show", file["id"])
    assert online.output("files", "content", file["id"]) == training_file.read_text()
    copy = tmp_path / "copy.jsonl"
    online.output("files", "content", file["id"], "-o", str(copy))
    assert copy.read_bytes() == training_file.read_bytes()
    assert online.output("files", "delete", file["id"]) == f"Deleted {file['id']}\n"
    gone = online.run("files", "content", file["id"], "-o", str(tmp_path / "none"))
    assert gone.returncode == 1
    assert not (tmp_path / "none").exists()


def test_piped_lists_are_plain_and_paged(online: CommandLine, training_file: Path) -> None:
    for _ in range(2):
        online.output("files", "upload", str(training_file))
    done = online.run("files", "list", "--limit", "1")
    heading, row = done.stdout.splitlines()
    assert heading.split("\t") == ["id", "filename", "purpose", "size", "created"]
    assert len(row.split("\t")) == 5
    assert f"--after {row.split()[0]}" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_models_list_and_show(online: CommandLine) -> None:
    assert BASE in online.output("models", "list")
    assert json.loads(online.output("models", "show", BASE, "--json"))["id"] == BASE
    missing = online.run("models", "show", "nobody")
    assert missing.returncode == 1
    assert "nobody" in missing.stderr


def test_chat_once_streamed_and_as_json(online: CommandLine) -> None:
    question = ("chat", BASE, "Say hello.", "--temperature", "0", "--max-tokens", "8")
    streamed = online.output(*question)
    whole = json.loads(online.output(*question, "--json"))
    assert streamed.strip() == whole["choices"][0]["message"]["content"].strip() != ""


def test_chat_converses_and_survives_an_error(online: CommandLine) -> None:
    said = online.output("chat", BASE, "--system", "Be brief.", "--max-tokens", "4", typed="Hello\n\nAnd again\n")
    assert len(said.splitlines()) >= 2
    done = online.run("chat", "nobody", typed="Hello\n")
    assert done.returncode == 0
    assert "nobody" in done.stderr


def test_bad_data_fails_the_job_and_the_watch(online: CommandLine, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n' * 12)
    done = online.run("jobs", "create", str(bad), "--watch")
    assert done.returncode == 1
    assert " failed: " in done.stdout
    assert "Line 1" in done.stdout


def test_a_job_from_creation_to_chat(online: CommandLine, training_file: Path) -> None:
    options = ("--epochs", "1", "--batch-size", "6", "--suffix", "cli", "--metadata", "team=cli", "--seed", "7")
    created = json.loads(online.output("jobs", "create", str(training_file), *options, "--json"))
    job_id = created["id"]
    assert created["seed"] == 7
    assert created["hyperparameters"]["n_epochs"] == 1

    watched = online.output("jobs", "watch", job_id)
    assert "step 2/2, loss " in watched
    assert "tokens/s" in watched
    assert f"{job_id} succeeded: ft:" in watched

    job = json.loads(online.output("jobs", "show", job_id, "--json"))
    model = job["fine_tuned_model"]
    assert model in online.output("jobs", "list", "--metadata", "team=cli")
    assert job_id not in online.output("jobs", "list", "--metadata", "team=other")
    assert "step\tmodel\t" in online.output("jobs", "checkpoints", job_id)
    assert "ckpt-step-2" in online.output("jobs", "checkpoints", job_id)
    assert "succe" in online.output("jobs", "events", job_id)
    assert online.output("files", "content", job["result_files"][0]).startswith("step,train_loss,")

    lines = [json.loads(line) for line in online.output("jobs", "watch", job_id, "--json").splitlines()]
    assert lines[-1]["status"] == "succeeded"
    assert [line["data"]["step"] for line in lines if line.get("type") == "metrics"] == [1, 2]

    assert online.output("chat", model, "Case 3", "--temperature", "0", "--max-tokens", "8").strip()
    assert online.output("models", "delete", model) == f"Deleted {model}\n"
    assert model not in online.output("models", "list")


def test_ctrl_c_only_detaches_from_a_watch(online: CommandLine, training_file: Path) -> None:
    options = ("--epochs", "50", "--batch-size", "1")
    job_id = json.loads(online.output("jobs", "create", str(training_file), *options, "--json"))["id"]
    watching = online.start("jobs", "watch", job_id)
    assert watching.stdout is not None
    assert watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, remark = watching.communicate(timeout=DEADLINE_S)
    assert watching.returncode == 0
    assert f"tunesmith jobs watch {job_id}" in remark
    assert json.loads(online.output("jobs", "show", job_id, "--json"))["status"] not in ("cancelled", "failed")
    online.output("jobs", "cancel", job_id)
    until_status(online, job_id, ("cancelled",))
    assert online.run("jobs", "watch", job_id).returncode == 1


def test_what_serve_and_its_children_write_is_for_the_owner_only(serve_process: ServeProcess, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    (home / "serve.log").touch()  # the test's own file, made with the test's own mode
    (home / "models").symlink_to(serve_process.home / "models")
    with ServeProcess(home) as server:
        online = CommandLine({"TUNESMITH_HOME": str(home), "TUNESMITH_BASE_URL": server.base_url})
        online.output("chat", BASE, "Hello", "--max-tokens", "1")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    written = [path for path in home.rglob("*") if path.name not in ("models", "serve.log")]
    assert {"first_key", "tunesmith.db"} <= {path.name for path in written}
    assert [path for path in written if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_stops_in_order_and_keeps_its_key(
    serve_process: ServeProcess, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "models").symlink_to(serve_process.home / "models")
    with ServeProcess(tmp_path) as first:
        key = (tmp_path / "first_key").read_text()
        assert "Training jobs that were running go on" in first.stop(number)
    with ServeProcess(tmp_path) as second:
        assert not any("key" in line for line in second.announced)
        assert (tmp_path / "first_key").read_text() == key

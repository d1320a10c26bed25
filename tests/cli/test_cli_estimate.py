"""``tunesmith files estimate``, with and without a server, and the cost in ``tunesmith jobs show``."""

import json
import time
from pathlib import Path

import pytest
from command_line import CommandLine

from tunesmith.catalog.fetch import install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.core.settings import Settings

CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"


@pytest.fixture
def local(tmp_path: Path) -> CommandLine:
    """A home with the base model, and no server."""
    install_base_model(Settings(home=CACHE), embedded_model().id, print)
    home = tmp_path / "home-with-model"
    home.mkdir()
    (home / "models").symlink_to(CACHE / "models")
    return CommandLine({"TUNESMITH_HOME": str(home), "TUNESMITH_BASE_URL": "http://127.0.0.1:9/v1"})


def test_a_path_needs_no_server(local: CommandLine, training_file: Path) -> None:
    said = local.output("files", "estimate", str(training_file), "--epochs", "2", "--validation-split", "0.25")
    assert "examples             9\n" in said
    assert "validation examples  3\n" in said
    assert "a guess" in said
    assert "fits: It needs" in said
    assert "at OpenAI's price for gpt-4o-mini: " in said
    quote = json.loads(local.output("files", "estimate", str(training_file), "--epochs", "2", "--json"))
    assert quote["trained_tokens"] == 2 * quote["epoch_tokens"]
    other = json.loads(
        local.output("files", "estimate", str(training_file), "--validation", str(training_file), "--json")
    )
    assert (other["training_examples"], other["validation_examples"]) == (12, 12)


def test_what_is_wrong_is_one_line(
    local: CommandLine, offline: CommandLine, tmp_path: Path, training_file: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(training_file.read_text(encoding="utf-8") + '{"messages": 7}\n', encoding="utf-8")
    prices = Path(local.variables["TUNESMITH_HOME"]) / "prices.json"
    for command, arguments, words in [
        (local, [str(bad)], "Line 13"),
        (local, ["missing.jsonl"], "missing.jsonl"),
        (local, ["file-not-here"], "No server answers"),
        (local, [str(training_file), "--validation", "missing.jsonl"], "missing.jsonl"),
        (local, [str(training_file), "--model", "ft:x:y"], "not available"),
        (local, [str(training_file), "--epochs", "99"], "n_epochs"),
        (offline, [str(training_file)], "tunesmith models pull"),
    ]:
        done = command.run("files", "estimate", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("tunesmith: ")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
    prices.write_text("{}")
    said = local.output("files", "estimate", str(training_file))
    assert "cost                 not known: The prices in prices.json cannot be used: " in said
    assert "\ntime " in said
    assert "\nhosting " not in said


def test_an_id_is_estimated_by_the_server_and_the_job_shows_both(online: CommandLine, training_file: Path) -> None:
    file_id = json.loads(online.output("files", "upload", str(training_file), "--json"))["id"]
    quote = json.loads(online.output("files", "estimate", file_id, "--epochs", "1", "--json"))
    here = json.loads(online.output("files", "estimate", str(training_file), "--epochs", "1", "--json"))
    assert (quote["seed"], quote["trained_tokens"]) == (here["seed"], here["trained_tokens"])
    job_id = json.loads(online.output("jobs", "create", file_id, "--epochs", "1", "--json"))["id"]
    shown = _shown_with(online, job_id, "\nquoted   ")
    assert f"quoted   {quote['trained_tokens']:,} trained tokens, {quote['cost']['amount']} USD, " in shown
    online.run("jobs", "cancel", job_id)
    assert " trained tokens, 0" in _shown_with(online, job_id, "\nactual   ").split("\nactual   ")[1]
    assert online.run("files", "estimate", "file-none").returncode == 1


def _shown_with(online: CommandLine, job_id: str, words: str) -> str:
    deadline = time.monotonic() + 120
    while words not in (shown := online.output("jobs", "show", job_id)):
        assert time.monotonic() < deadline, shown
    return shown

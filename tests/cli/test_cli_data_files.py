"""Checking, previewing, mending and splitting from the command line, with and without a server and a model."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from tunesmith.catalog.fetch import install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.cli.main import _system_error
from tunesmith.core.settings import Settings
from tunesmith.data.writing import writing

CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"
COLOURS = ("red", "green", "blue")


def chat(user: str, assistant: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


GOOD = [chat(f"Case {n * 7919}: a leak in house {n} of {n * 31} Elm Street", COLOURS[n % 3]) for n in range(30)]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.jsonl", GOOD)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return write(tmp_path / "bad.jsonl", [*GOOD, b"{broken", chat("Who pays? ", "red "), GOOD[0]])


@pytest.fixture
def with_model(tmp_path: Path) -> CommandLine:
    """No server; the models of the repository's cache."""
    install_base_model(Settings(home=CACHE), embedded_model().id, print)
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(CACHE / "models")
    return CommandLine({"TUNESMITH_HOME": str(home), "TUNESMITH_BASE_URL": "http://127.0.0.1:9/v1"})


def test_check_works_without_server_and_model(offline: CommandLine, good: Path, bad: Path) -> None:
    done = offline.run("files", "check", str(bad))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "bad.jsonl: 33 chat rows" in done.stdout
    assert "invalid_json" in done.stdout
    assert "line 31" in done.stdout
    assert "--fix drop_rows" in done.stdout
    assert "No model was named or installed: tokens were not counted." in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert offline.run("files", "check", str(good)).returncode == 0
    assert not (good.parent / "home").exists()


def test_check_counts_tokens_where_a_model_is(with_model: CommandLine, good: Path, bad: Path) -> None:
    report = json.loads(with_model.output("files", "check", str(good), "--json"))
    assert report["tokens"]["model"] == "smollm2-135m-instruct"
    assert (report["num_rows"], report["num_errors"]) == (30, 0)
    said = with_model.output("files", "check", str(good))
    assert f"{report['tokens']['num_tokens']:,}" in said
    assert "labels: blue 10, green 10, red 10" in said
    failed = with_model.run("files", "check", str(bad), "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["num_bad_rows"] == 1


def test_check_looks_at_a_validation_file(offline: CommandLine, good: Path, tmp_path: Path) -> None:
    leaky = write(tmp_path / "valid.jsonl", GOOD[:3])
    report = json.loads(offline.output("files", "check", str(good), "--validation", str(leaky), "--json"))
    assert "validation_overlap" in {group["rule"] for group in report["groups"]}


def test_depth_structure_reads_rows_only(offline: CommandLine, bad: Path) -> None:
    report = json.loads(offline.run("files", "check", str(bad), "--depth", "structure", "--json").stdout)
    assert {group["rule"] for group in report["groups"] if group["severity"] == "error"} == {"invalid_json"}
    assert "whitespace_at_ends" not in {group["rule"] for group in report["groups"]}


def test_completions_are_read_as_a_job_would(with_model: CommandLine, tmp_path: Path) -> None:
    path = str(write(tmp_path / "old.jsonl", [{"prompt": f"Case {n * 7919}:", "completion": "red"} for n in range(12)]))
    assert json.loads(with_model.run("files", "check", path, "--json").stdout)["num_bad_rows"] == 12
    assert json.loads(with_model.output("files", "check", path, "--completions", "chat", "--json"))["num_errors"] == 0
    assert 'trained\t"red<|im_end|>"' in with_model.output("files", "preview", path, "--completions", "chat")
    kept = with_model.run("files", "mend", path, "--fix", "drop_rows", "--completions", "chat")
    assert "change nothing" in kept.stderr
    for command in (["check"], ["preview"], ["mend", "--fix", "drop_rows", "-o", str(tmp_path / "x.jsonl")]):
        refused = with_model.run("files", command[0], path, *command[1:], "--completions", "plain")
        assert refused.returncode == 1
        assert "chat model" in refused.stderr


def test_mend_drops_what_stands_in_the_validation_file(offline: CommandLine, good: Path, tmp_path: Path) -> None:
    leaky = write(tmp_path / "valid.jsonl", GOOD[:3])
    arguments = ["--fix", "drop_rows", "--rule", "validation_overlap", "--validation", str(leaky), "--json"]
    done = json.loads(offline.output("files", "mend", str(good), *arguments))
    assert done["summary"]["num_dropped"] == 3


def test_rows_that_a_mend_could_not_read_are_told_of(offline: CommandLine, tmp_path: Path) -> None:
    rows = [chat("q", "jane@example.com"), b'{"messages": [{"content": "jane@example.com"}], "n": 1e999}', b"{broken"]
    path = str(write(tmp_path / "odd.jsonl", rows))
    done = offline.run("files", "mend", path, "--fix", "mask_personal_data")
    assert "2 rows could not be read and stay as they were" in done.stdout
    again = offline.run(
        "files", "mend", path, "--fix", "mask_personal_data", "drop_rows", "-o", str(tmp_path / "b.jsonl")
    )
    assert "could not be read" not in again.stdout
    assert "jane" not in (tmp_path / "b.jsonl").read_text()


def test_preview_shows_what_is_learned(with_model: CommandLine, good: Path) -> None:
    said = with_model.output("files", "preview", str(good), "--line", "2")
    assert "line 2, chat:" in said
    assert [line for line in said.splitlines() if line.startswith("trained\t")] == ['trained\t"green<|im_end|>"']
    shown = json.loads(with_model.output("files", "preview", str(good), "--line", "2", "--json"))
    assert shown["digest"] in said


def test_mend_writes_a_new_path_and_says_what_it_did(offline: CommandLine, bad: Path) -> None:
    before = bad.read_bytes()
    said = offline.output("files", "mend", str(bad), "--fix", "strip", "drop_rows", "deduplicate")
    out = bad.with_name("bad.mended.jsonl")
    assert "33 rows: 1 changed, 2 dropped, 31 left" in said
    assert '- "Who pays? "' in said
    assert '+ "Who pays?"' in said
    assert out.read_bytes().splitlines()[:30] == before.splitlines()[:30]
    assert len(out.read_bytes().splitlines()) == 31
    assert bad.read_bytes() == before
    again = offline.run("files", "mend", str(bad), "--fix", "strip")
    assert (again.returncode, again.stdout) == (1, "")
    assert "bad.mended.jsonl is there already" in again.stderr
    same = offline.run("files", "mend", str(out), "--fix", "strip", "-o", str(out.with_name("same.jsonl")))
    assert (same.returncode, same.stdout) == (1, "")
    assert "change nothing" in same.stderr
    assert not out.with_name("same.jsonl").exists()


def test_mend_drops_lines_and_what_rules_find(offline: CommandLine, bad: Path) -> None:
    arguments = ["--fix", "drop_rows", "--rule", "whitespace_at_ends", "invalid_json", "--line", "2", "5", "--json"]
    done = json.loads(offline.output("files", "mend", str(bad), *arguments))
    assert done["summary"]["num_dropped"] == 4
    kept = Path(done["output"]).read_bytes().splitlines()
    lines = bad.read_bytes().splitlines()
    assert kept == [line for number, line in enumerate(lines, start=1) if number not in (2, 5, 31, 32)]


def test_mend_drops_what_does_not_fit_the_model(with_model: CommandLine, tmp_path: Path) -> None:
    path = write(tmp_path / "long.jsonl", [*GOOD, chat("word " * 9000, "red")])
    done = json.loads(with_model.output("files", "mend", str(path), "--fix", "drop_rows", "--json"))
    assert done["summary"]["num_dropped"] == 1


def test_split_writes_two_paths(offline: CommandLine, good: Path) -> None:
    said = offline.output("files", "split", str(good), "--share", "0.3", "--seed", "4")
    train, valid = good.with_name("good.train.jsonl"), good.with_name("good.valid.jsonl")
    assert "30 rows: 21 to train on, 9 held out" in said
    assert "red\t7\t3" in said
    rows = train.read_bytes().splitlines() + valid.read_bytes().splitlines()
    assert sorted(rows) == sorted(good.read_bytes().splitlines())
    other = [str(good.with_name(name)) for name in ("a.jsonl", "b.jsonl")]
    offline.output("files", "split", str(good), "--count", "9", "--seed", "4", "--train", other[0], "--valid", other[1])
    assert Path(other[1]).read_bytes() == valid.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "missing.jsonl"], "missing.jsonl"),
        (["check", "{good}", "--model", "nobody"], "nobody"),
        (["check", "{good}", "--validation", "missing.jsonl"], "missing.jsonl"),
        (["check", "file-abc", "--depth", "tokens"], "--depth"),
        (["check", "file-abc", "--validation", "{good}"], "--validation"),
        (["mend", "file-abc", "--fix", "drop_rows", "--validation", "{good}"], "--validation"),
        (["preview", "{good}"], "tunesmith models pull"),
        (["preview", "missing.jsonl"], "missing.jsonl"),
        (["mend", "{good}", "--fix", "strip", "--line", "1"], "drop_rows"),
        (["mend", "{good}", "--fix", "drop_rows", "--line", "99"], "line 99"),
        (["mend", "{good}", "--fix", "drop_rows", "--rule", "nobody"], "nobody"),
        (["mend", "{good}", "--fix", "strip", "-o", "no/such/folder.jsonl"], "no/such"),
        (["mend", "file-abc", "--fix", "strip", "-o", "x.jsonl"], "--output"),
        (["split", "{good}", "--share", "2"], "share is 2"),
        (["split", "{good}", "--count", "30"], "30 rows"),
        (["split", "{good}", "--share", "0.5", "--count", "3"], "both"),
        (["split", "file-abc", "--train", "x.jsonl"], "--train"),
        (["check", "file-abc"], "tunesmith serve"),
    ],
)
def test_misuse_is_one_line(offline: CommandLine, good: Path, arguments: list[str], words: str) -> None:
    done = offline.run("files", *(argument.replace("{good}", str(good)) for argument in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert [path.name for path in good.parent.iterdir() if path.name != "home"] == ["good.jsonl"]


def test_an_unknown_fix_is_refused_with_the_known_ones(offline: CommandLine, good: Path) -> None:
    done = offline.run("files", "mend", str(good), "--fix", "polish")
    assert done.returncode == 2
    assert "normalise" in done.stderr


def test_with_ids_the_server_does_it(online: CommandLine, bad: Path) -> None:
    file_id = json.loads(online.output("files", "upload", str(bad), "--json"))["id"]
    done = online.run("files", "check", file_id)
    assert done.returncode == 1
    assert "bad.jsonl: 33 chat rows" in done.stdout
    assert "trained\t" in online.output("files", "preview", file_id, "--line", "32")
    assert "31 left" in online.output("files", "mend", file_id, "--fix", "strip", "drop_rows", "deduplicate")

    (made,) = json.loads(online.output("files", "show", file_id, "--json"))["children"]
    shown = online.output("files", "show", made)
    assert f"made from  {file_id}" in shown
    assert "made by    mend (fixes strip, drop_rows, deduplicate; " in shown
    assert made in online.output("files", "show", file_id)
    assert online.run("files", "check", made).returncode == 0

    said = online.output("files", "split", made, "--count", "6")
    valid = next(line for line in said.splitlines() if line.startswith("valid")).split()[-1]
    assert len(online.output("files", "content", valid).splitlines()) == 6
    assert "side valid" in online.output("files", "show", valid)


def test_with_ids_a_validation_file_is_an_id_too(online: CommandLine, good: Path, tmp_path: Path) -> None:
    leaky = write(tmp_path / "valid.jsonl", GOOD[:3])
    ids = [json.loads(online.output("files", "upload", str(path), "--json"))["id"] for path in (good, leaky)]
    report = json.loads(
        online.output("files", "check", ids[0], "--validation", ids[1], "--completions", "chat", "--json")
    )
    assert "validation_overlap" in {group["rule"] for group in report["groups"]}
    assert "trained\t" in online.output("files", "preview", ids[0], "--completions", "chat")


@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 20])
def test_nothing_is_made_of_nothing(offline: CommandLine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.jsonl").write_bytes(content)
    done = offline.run("files", "mend", str(tmp_path / "odd.jsonl"), "--fix", "strip")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert [path.name for path in tmp_path.glob("odd*")] == ["odd.jsonl"]


@pytest.mark.parametrize("other", ["./half.jsonl", "sub/../half.jsonl", "link/half.jsonl"])
def test_both_sides_of_a_split_need_a_path(offline: CommandLine, good: Path, other: str) -> None:
    folder = good.parent
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(folder)
    done = offline.run("files", "split", str(good), "--train", f"{folder}/half.jsonl", "--valid", f"{folder}/{other}")
    assert done.returncode == 1
    assert "--valid: Both sides have the same path." in done.stderr
    assert not (folder / "half.jsonl").exists()


def test_a_split_names_the_option_of_a_path_that_is_taken(offline: CommandLine, good: Path) -> None:
    for option in ("--train", "--valid"):
        done = offline.run("files", "split", str(good), option, str(good))
        assert f"Name another path with {option}." in done.stderr


@pytest.mark.parametrize(
    "command", [["files", "check"], ["files", "estimate"], ["jobs", "create"], ["files", "upload"]]
)
def test_what_is_no_file_is_named(offline: CommandLine, tmp_path: Path, command: list[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name, words in (
        (".", "is a folder"),
        ("pipe", "is a pipe"),
        ("link", "is a link to nowhere"),
        ("none", "There is no file"),
    ):
        done = offline.run(*command, str(tmp_path / name))
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr


@pytest.mark.parametrize(
    ("command", "option", "value", "words"),
    [
        ("split", "--share", "2", "Give a number between 0 and 1"),
        ("split", "--seed", "-1", "Give a whole number from 0"),
        ("estimate", "--epochs", "0", "Give a whole number from 1 to 50"),
        ("estimate", "--lora-r", "0", "lora_r is 0. Expected a whole number >= 1."),
        ("estimate", "--validation-split", "2", "validation_split is 2.0. Expected a number < 1.0."),
    ],
)
def test_a_number_out_of_range_names_its_option(
    offline: CommandLine, good: Path, command: str, option: str, value: str, words: str
) -> None:
    done = offline.run("files", command, str(good), option, value)
    assert done.returncode == 1
    assert f"tunesmith: {option}: " in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    "command",
    [["files", "check"], ["files", "preview"], ["files", "estimate"], ["files", "mend", "--fix", "drop_rows"]],
)
def test_an_unknown_model_has_one_hint(offline: CommandLine, good: Path, command: list[str]) -> None:
    for arguments in ([*command[:2], str(good), *command[2:], "--model", "nobody"], ["models", "pull", "nobody"]):
        assert (
            "tunesmith models list; fetch a base model with: tunesmith models pull." in offline.run(*arguments).stderr
        )


def test_counts_of_one_are_singular(offline: CommandLine, tmp_path: Path) -> None:
    said = offline.run("files", "check", str(write(tmp_path / "one.jsonl", [b"[1]"]))).stdout
    assert "one.jsonl: 1 row, none of a kind that is known, 4 B" in said
    assert "2 errors, 0 warnings, 0 hints (1 row with errors)" in said
    assert "(data_type), 1 time\n" in said


def test_pairs_are_shown_as_preferred_and_rejected(with_model: CommandLine, tmp_path: Path) -> None:
    outputs = [[{"role": "assistant", "content": text}] for text in ("Yes, sir.", "Never!")]
    asked = {"messages": [{"role": "user", "content": "Is it calm?"}]}
    pair = {"input": asked, "preferred_output": outputs[0], "non_preferred_output": outputs[1]}
    path = str(write(tmp_path / "pairs.jsonl", [pair] * 12))
    said = with_model.output("files", "preview", path).splitlines()
    assert [line.partition(":")[0] for line in said if line.startswith(("preferred", "rejected:"))] == [
        "preferred",
        "rejected",
    ]
    assert 'trained\t"Yes, sir.<|im_end|>"' in said
    assert 'rejected\t"Never!<|im_end|>"' in said
    checked = with_model.run("files", "check", path)
    assert checked.returncode == 1
    assert "kind_not_trainable" in checked.stdout


def test_an_estimate_takes_completions(with_model: CommandLine, tmp_path: Path) -> None:
    path = str(write(tmp_path / "old.jsonl", [{"prompt": f"Case {n * 7919}:", "completion": "red"} for n in range(12)]))
    assert "--completions chat" in with_model.run("files", "estimate", path).stderr
    assert "examples" in with_model.output("files", "estimate", path, "--completions", "chat")


def test_a_full_disk_is_told_with_the_path() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/data/claims.mended.jsonl")
    assert _system_error(error) == (
        "No space left on device: /data/claims.mended.jsonl. Make room there, or name a path on another disk."
    )


def test_errors_while_writing_name_the_new_file(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    for raised, named in ((None, out), (tmp_path / ".mend-x" / "part", out), (source, source)):
        with pytest.raises(OSError, match="No space") as caught, writing(source, out):
            raise OSError(errno.ENOSPC, "No space left on device", None if raised is None else str(raised))
        assert caught.value.filename == str(named)

"""The claims desk: as its README says, and fair: nothing held out was trained on."""

import json
import runpy
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "examples" / "data"
NUM_ROWS = {"train": 300, "heldout": 60, "validation": 24}


def read(name: str) -> list[list[dict[str, str]]]:
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def words(text: str) -> frozenset[str]:
    return frozenset("".join(c if c.isalpha() else " " for c in text.lower()).split())


def test_the_files_are_what_the_program_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = runpy.run_path(str(DATA / "make.py"))
    (tmp_path / "phrases.toml").write_bytes((DATA / "phrases.toml").read_bytes())
    monkeypatch.setitem(make["main"].__globals__, "HERE", tmp_path)
    make["main"]()
    for name, num_rows in NUM_ROWS.items():
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (DATA / f"{name}.jsonl").read_bytes()
        assert len(read(name)) == num_rows


def test_rows_share_one_system_prompt_that_names_no_code() -> None:
    rows = [row for name in NUM_ROWS for row in read(name)]
    (system,) = {row[0]["content"] for row in rows}
    assert {tuple(message["role"] for message in row) for row in rows} == {("system", "user", "assistant")}
    for code in {row[2]["content"].split("-")[0] for row in rows}:
        assert code not in system


def test_every_held_out_answer_could_be_learned() -> None:
    """Each code and each colour of the held-out rows stands in the training rows."""
    trained = {part for row in read("train") for part in row[2]["content"].split(" | ")}
    for row in read("heldout") + read("validation"):
        assert set(row[2]["content"].split(" | ")) <= trained


def test_no_held_out_message_is_close_to_a_training_message() -> None:
    trained = [words(row[1]["content"]) for row in read("train")]
    for name in ("heldout", "validation"):
        for row in read(name):
            asked = words(row[1]["content"])
            nearest = max(len(asked & other) / len(asked | other) for other in trained)
            assert nearest < 0.6, row[1]["content"]


def test_messages_are_all_different() -> None:
    messages = [row[1]["content"] for name in NUM_ROWS for row in read(name)]
    assert len(set(messages)) == sum(NUM_ROWS.values())

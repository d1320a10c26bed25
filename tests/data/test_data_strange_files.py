"""Files as strangers bring them: each is named for what it is, and no advice leads nowhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.content.rows import RowRules
from tunesmith.data.content.turns import view
from tunesmith.data.doctor import check
from tunesmith.data.findings import Finding
from tunesmith.data.formats import read_row
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import ChatRow, Message
from tunesmith.data.tokens import RowTokenizer


def chat(user: str, assistant: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant, **more}]}


GOOD = [chat(f"Where does river {n} of {n * 7919} end?", f"In sea {n * 31}, past town {n}.") for n in range(12)]

Examine = Callable[..., DatasetReport]


@pytest.fixture
def examine(tmp_path: Path, tools_tokenizer: RowTokenizer) -> Examine:
    def run(content: bytes | list[Any], **options: Any) -> DatasetReport:
        if isinstance(content, list):
            content = b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in content)
        path = tmp_path / "rows.jsonl"
        path.write_bytes(content)
        return check(path, **{"tokenizer": tools_tokenizer, "limit_tokens": 2000, **options})

    return run


def found(report: DatasetReport, rule: str) -> list[Finding]:
    return next((group.samples for group in report.groups if group.rule == rule), [])


def errors(report: DatasetReport) -> list[str]:
    return [group.rule for group in report.groups if group.severity == "error"]


def fixes(report: DatasetReport) -> set[str]:
    return {group.fix for group in report.groups if group.fix}


def said_of(row: dict[str, Any]) -> dict[str, str]:
    return {finding.rule: finding.what for finding in read_row(json.dumps(row).encode(), 1, "chat")[1]}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_not_taken_for_a_weight_of_0(number: str) -> None:
    raw = json.dumps(chat("a", "b", weight=7)).replace("7", number).encode()
    (rule,) = {finding.rule for finding in read_row(raw, 1, "chat")[1]} - {"missing_system_message"}
    assert rule in ("nan_or_infinity", "huge_number")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("ha " * 100, "A piece of 3 characters stands 100 times in a row: 100 % of the answer."),
        ("lorem ipsum dolor " * 50, "A piece of 18 characters stands 50 times in a row: 100 % of the answer."),
        ("\u54c8" * 300, "One character stands 300 times in a row: 100 % of the answer."),
        ("So it goes: " + "and then he said that " * 20, "A piece of 22 characters stands 20 times in a row: 97 %"),
        ("The cat sat on the mat and looked. " * 4 + "It did so for a long while. " * 3, "One sentence stands 4 times"),
        ("a b c d e f g h and so on and on it goes. " * 5 + "x" * 300, "One character stands 300 times in a row: 58 %"),
    ],
)
def test_a_loop_is_found_with_its_share(answer: str, words: str) -> None:
    row = ChatRow([Message("user", "Go on."), Message("assistant", answer)])
    said = [finding.what for finding in RowRules().findings(view(row, 1)) if finding.rule == "repeats_itself"]
    assert len(said) == 1
    assert words in said[0]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps([{"name": f"n{n}", "value": n * 37} for n in range(40)]),
        "def f():\n" + "".join(f"    x{n} = {n}\n" for n in range(40)),
        "| --- | --- |\n".join(f"| {n * 7919} | {n * 31} |\n" for n in range(30)),
        "Words that tell a story which goes on and never says the same again, then at last a line. " + "- " * 20,
    ],
)
def test_a_form_is_no_loop(answer: str) -> None:
    row = ChatRow([Message("user", "Go on."), Message("assistant", answer)])
    assert "repeats_itself" not in {finding.rule for finding in RowRules().findings(view(row, 1))}


@pytest.mark.parametrize(
    ("message", "rule", "words"),
    [
        ({"role": None, "content": "a"}, "unrecognized_role", "The role is null."),
        ({"role": ["user"], "content": "a"}, "unrecognized_role", "The role is a list."),
        ({"role": "User", "content": "a"}, "unrecognized_role", 'The role is "User".'),
        ({"role": "user", "content": {"a": 1}}, "wrong_type", "Expected a string, a list or null, got an object."),
        ({"role": "user", "content": [{"type": "text"}]}, "wrong_type", '"text" is missing.'),
        (
            {"role": "assistant", "content": "a", "weight": 0.5},
            "invalid_weight",
            "The weight is 0.5; it must be the whole number 0 or 1.",
        ),
    ],
)
def test_values_are_named_in_the_words_of_json(message: dict[str, Any], rule: str, words: str) -> None:
    row = chat("a", "b")
    row["messages"].insert(0, message)
    assert said_of(row)[rule] == words


def test_roles_that_no_machine_knows_are_not_offered_to_it(examine: Examine) -> None:
    unknown, foreign = chat("a", "b"), chat("c", "d")
    unknown["messages"][0]["role"], foreign["messages"][0]["role"] = "usr", "human"
    assert "normalise_roles" not in fixes(examine([*GOOD, unknown]))
    assert "drop_rows" in fixes(examine([*GOOD, unknown]))
    assert "normalise_roles" in fixes(examine([*GOOD, unknown, foreign]))

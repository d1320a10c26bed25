"""Files as strangers bring them: each is named for what it is, and no advice leads nowhere."""

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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


LINES = b"\n".join(json.dumps(row).encode() for row in GOOD)
TEXT = LINES.decode()


@pytest.mark.parametrize(
    ("content", "rule", "words"),
    [
        (TEXT.encode("utf-16"), "not_utf8", "The file is UTF-16."),
        (TEXT.encode("utf-16-le"), "not_utf8", "The file is UTF-16."),
        (TEXT.encode("utf-16-be"), "not_utf8", "The file is UTF-16."),
        (TEXT.encode("utf-32"), "not_utf8", "The file is UTF-32."),
        (TEXT.encode("utf-32-le"), "not_utf8", "The file is UTF-32."),
        (random.Random(1).randbytes(5000), "compressed_file", "not a text file"),
        (random.Random(2).randbytes(40), "compressed_file", "not a text file"),
        (LINES.replace(b"\n", b"\r"), "not_json_lines", "The lines end in CR"),
        (json.dumps(GOOD, indent=1).encode(), "not_json_lines", "one JSON document over many lines"),
        (json.dumps(GOOD[0], indent=2).encode(), "not_json_lines", "one JSON document over many lines"),
        (
            b'prompt,completion\n"q 1","a 1"\n',
            "not_json_lines",
            "a table with commas between its columns (prompt, comp",
        ),
        (b'"id"\t"the question"\r\n1\tWhy?\r\n', "not_json_lines", "a table with tabs between its columns (id, the qu"),
    ],
)
def test_what_is_no_json_lines_is_named_once(examine: Examine, content: bytes, rule: str, words: str) -> None:
    report = examine(content)
    assert [(group.rule, group.count) for group in report.groups] == [(rule, 1)]
    assert words in report.groups[0].samples[0].what
    assert (report.num_rows, report.num_bad_rows, fixes(report), report.skipped) == (0, 0, set(), [])


@pytest.mark.parametrize(
    "content", [LINES, b"\xef\xbb\xbf" + LINES, LINES.replace(b"\n", b"\r\n"), LINES + b"\n\n", b"\n" + LINES]
)
def test_rows_in_other_clothes_are_rows(examine: Examine, content: bytes) -> None:
    assert (examine(content).num_rows, examine(content).num_bad_rows) == (12, 0)


def test_a_list_of_rows_on_one_line_is_told_how_to_be_written(examine: Examine) -> None:
    (finding,) = found(examine([GOOD]), "data_type")
    assert "It holds 12 objects: write each of them on a line of its own" in finding.what


def test_a_text_that_is_damaged_in_places_stays_rows(examine: Examine) -> None:
    broken = b'{"messages": "' + bytes(range(10)) * 60
    report = examine([*GOOD, broken, "Stra\u00dfe".encode("latin-1")])
    assert (report.num_rows, report.num_bad_rows) == (14, 2)


def test_dropping_is_no_mend_where_no_row_would_be_left(examine: Examine) -> None:
    assert fixes(examine([{"text": "a"}, {"text": "b"}])) == set()
    assert fixes(examine([*GOOD, {"text": "a"}])) == {"drop_rows"}


def pair(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Which of {number * 7919} is it?"}]
    outputs = [[{"role": "assistant", "content": text}] for text in (f"It is {number}, sir.", f"Never {number}!")]
    return {"input": {"messages": messages}, "preferred_output": outputs[0], "non_preferred_output": outputs[1]}


PROMPTS = [{"messages": [{"role": "user", "content": f"Is {n * 7919} odd?"}], "target": n % 2} for n in range(12)]


@pytest.mark.parametrize(
    ("rows", "words"),
    [([pair(n) for n in range(12)], "preference pairs"), (PROMPTS, "prompts for reinforcement")],
)
def test_rows_that_no_job_takes_are_not_called_good(examine: Examine, rows: list[Any], words: str) -> None:
    report = examine(rows)
    (finding,) = found(report, "kind_not_trainable")
    assert words in finding.what
    assert (errors(report), report.num_bad_rows, report.verdict) == (["kind_not_trainable"], 0, "errors")
    assert "kind_not_trainable" not in errors(examine(GOOD))


def test_completions_for_a_chat_model_are_told_of_the_option(examine: Examine) -> None:
    report = examine([{"prompt": f"Who is {n * 7919}?", "completion": f" It is {n}."} for n in range(12)])
    (group,) = (group for group in report.groups if group.severity == "error")
    assert (group.rule, group.count, group.fix) == ("completion_for_chat_model", 12, None)
    assert '"completions": "chat"' in group.mend
    assert "--completions chat" in group.mend


def test_one_word_where_no_row_has_a_system_message(examine: Examine) -> None:
    (finding,) = found(examine(GOOD), "missing_system_message")
    assert (finding.line, finding.what) == (None, "No row has a system message.")
    led = chat("Why?", "So.")
    led["messages"].insert(0, {"role": "system", "content": "Be short."})
    assert [finding.line for finding in found(examine([*GOOD[:2], led]), "missing_system_message")] == [1, 2]
    assert found(examine([led] * 3), "missing_system_message") == []


def test_rows_too_large_to_tokenise_count_as_over_the_limit(examine: Examine) -> None:
    report = examine([*GOOD, chat("Sum up.", "words " * 40_000), chat("Sum up.", "words " * 3000)])
    assert report.tokens is not None
    (group,) = (group for group in report.groups if group.rule == "over_context")
    assert group.count == report.tokens.num_over_limit == 2


def test_skipped_is_only_what_someone_can_do_something_about(examine: Examine) -> None:
    few = examine(GOOD)
    assert few.skipped == []
    many = examine(
        [
            chat(f"Where does river {n} of {n * 7919} end, pray?", f"In sea {n} past " + "a town, " * 5 + f"{n}.")
            for n in range(40)
        ]
    )
    assert [skipped.rule for skipped in many.skipped] == ["unrelated_answer"]


def test_progress_is_told_while_texts_are_embedded(examine: Examine) -> None:
    told: list[int] = []
    begun: list[int] = []

    def embed(texts: list[str]) -> NDArray[np.float32]:
        begun.append(told[-1])
        return np.eye(len(texts), 384, dtype=np.float32)

    rows = [chat(f"Where does river {n * 7919} end, {n}?", f"In sea {n}, past " + "a town, " * 5) for n in range(300)]
    examine(rows, embed=embed, progress=lambda done, _: told.append(done))
    assert told[-1] == 1000
    assert told == sorted(set(told)), "it never falls"
    assert len(begun) > 15
    assert begun[0] < 100, "reading is a small part"
    assert max(b - a for a, b in itertools.pairwise(begun)) < 100, "it never stands still"


def test_progress_counts_reading_where_nothing_follows(examine: Examine) -> None:
    told: list[int] = []
    examine(GOOD, depth="structure", progress=lambda done, whole: told.append(1000 * done // whole))
    assert told[-1] == 1000

"""Rows of every kind: read to the right type, and every fault of a row said with its place."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.data import rules
from tunesmith.data.explain import explain_row
from tunesmith.data.findings import Finding
from tunesmith.data.formats import decode_any, decode_row, read_row
from tunesmith.data.notes import MAX_ROW_FINDINGS
from tunesmith.data.rows import (
    ChatRow,
    CompletionRow,
    Kind,
    Message,
    PreferenceRow,
    ReinforcementRow,
    conversations,
    kind_of,
)

USER = {"role": "user", "content": "q"}
SYSTEM = {"role": "system", "content": "s"}
ANSWER = {"role": "assistant", "content": "a"}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


def call(arguments: str = '{"n": 1}', id: str = "c1", name: str = "f") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(id: str | None = "c1") -> dict[str, Any]:
    return {"role": "tool", "content": "1"} | ({"tool_call_id": id} if id is not None else {})


def chat(*messages: object, **keys: object) -> bytes:
    return json.dumps({"messages": [SYSTEM, *messages], **keys}).encode()


def preference(preferred: object = (ANSWER,), other: object = ({**ANSWER, "content": "b"},), **keys: object) -> bytes:
    row = {"input": {"messages": [SYSTEM, USER]}, "preferred_output": preferred, "non_preferred_output": other}
    return json.dumps({key: value for key, value in (row | keys).items() if value is not ...}).encode()


def places(findings: list[Finding]) -> list[tuple[str, str | None]]:
    return [(finding.rule, finding.json_path) for finding in findings]


GOOD: list[tuple[Kind, bytes, type]] = [
    ("chat", chat(USER, ANSWER), ChatRow),
    ("chat", chat(USER, ANSWER, USER, ANSWER), ChatRow),
    (
        "chat",
        chat({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ANSWER),
        ChatRow,
    ),
    ("chat", chat(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1, "name": "n"}), ChatRow),
    ("chat", chat({"role": "developer", "content": 'say "x" \\" \\\\'}, USER, {**ANSWER, "refusal": None}), ChatRow),
    ("chat", chat(USER, calling(call()), tools=[TOOL], parallel_tool_calls=False), ChatRow),
    ("chat", chat(USER, calling(call(), call(id="c2")), result("c2"), result(), ANSWER, tools=[TOOL]), ChatRow),
    (
        "chat",
        chat(
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"n": 2}'}},
            {"role": "function", "name": "f", "content": "2"},
            ANSWER,
            functions=[TOOL["function"]],
        ),
        ChatRow,
    ),
    ("preference", preference(), PreferenceRow),
    (
        "preference",
        preference(..., ..., preferred_completion=[ANSWER], non_preferred_completion=[{**ANSWER, "content": "b"}]),
        PreferenceRow,
    ),
    ("preference", preference([calling(call()), result(), ANSWER]), PreferenceRow),
    ("reinforcement", chat(USER, solution={"x": [1, None]}, level=3), ReinforcementRow),
    ("reinforcement", chat(USER, ANSWER, USER), ReinforcementRow),
    ("completion", b'{"prompt": "", "completion": " b"}', CompletionRow),
]


@pytest.mark.parametrize(("kind", "raw", "type_"), GOOD)
def test_a_good_row_is_read_without_a_word(kind: Kind, raw: bytes, type_: type) -> None:
    row, findings = read_row(raw, 1, kind)
    assert (type(row), findings) == (type_, [])
    assert row is not None
    assert kind_of(row) == kind


@pytest.mark.parametrize(("kind", "raw", "type_"), GOOD)
def test_explaining_a_good_row_finds_nothing(kind: Kind, raw: bytes, type_: type) -> None:
    assert explain_row(raw, 1, kind) == []


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
DEEP = b'{"messages": [], "tools": ' + b"[" * 150 + b"]" * 150 + b"}"

BAD: list[tuple[Kind, bytes, list[tuple[str, str | None]]]] = [
    ("chat", b"{", [("invalid_json", None)]),
    ("chat", b'"text"', [("data_type", "$")]),
    ("chat", b'{"a": "\xff"}', [("not_utf8", None)]),
    ("chat", b"\xef\xbb\xbf" + chat(USER, ANSWER), [("invalid_json", None)]),
    (
        "chat",
        b'{"messages": [{"role": "user", "content": "", "cont\\u0065nt": "r"}, ' + json.dumps(ANSWER).encode() + b"]}",
        [("duplicate_key", "$.messages[0].content"), ("missing_system_message", "$.messages")],
    ),
    (
        "chat",
        b'{"messages": [], ' + chat(USER, ANSWER)[1:],
        [("duplicate_key", "$.messages")],
    ),
    (
        "reinforcement",
        chat(USER, a=float("nan"), b=[-float("inf")]),
        [("nan_or_infinity", "$.a"), ("nan_or_infinity", "$.b[0]")],
    ),
    ("reinforcement", chat(USER)[:-1] + b', "a": {"x y": 1e400}}', [("huge_number", '$.a["x y"]')]),
    ("chat", chat(USER, {**ANSWER, "content": "\ud800"}), [("lone_surrogate", "$.messages[2].content")]),
    ("chat", DEEP, [("deep_nesting", "$.tools[0][0]")]),
    ("chat", b'{"question": "x", "answer": "y"}', [("missing_messages_list", "$")]),
    ("chat", b'{"messages": {}}', [("missing_messages_list", "$.messages")]),
    ("chat", b'{"messages": []}', [("empty_messages", "$.messages")]),
    ("chat", chat(1, ANSWER), [("wrong_type", "$.messages[1]")]),
    ("chat", chat({**USER, "content": 5}, ANSWER), [("wrong_type", "$.messages[1].content")]),
    ("chat", chat(USER, ANSWER, tools=5), [("wrong_type", "$.tools")]),
    ("chat", chat(USER, ANSWER, id=5), [("unrecognized_key", "$.id")]),
    ("chat", chat({"content": "q"}, ANSWER), [("message_missing_key", "$.messages[1]")]),
    (
        "chat",
        chat({**USER, "age": 5, "x.y": 6}, ANSWER),
        [("message_unrecognized_key", "$.messages[1].age"), ("message_unrecognized_key", '$.messages[1]["x.y"]')],
    ),
    ("chat", chat({**USER, "role": "bot"}, ANSWER), [("unrecognized_role", "$.messages[1].role")]),
    ("chat", chat({"role": "user"}, ANSWER), [("missing_content", "$.messages[1].content")]),
    ("chat", chat(USER), [("example_missing_assistant_message", "$.messages")]),
    ("chat", chat(USER, ANSWER, USER), [("last_message_not_assistant", "$.messages[3].role")]),
    ("reinforcement", chat(USER, ANSWER, x=1), [("last_message_not_user", "$.messages[2].role")]),
    ("chat", chat(USER, {**ANSWER, "weight": 0}), [("nothing_trained", "$.messages")]),
    ("chat", chat(USER, {**ANSWER, "content": ""}), [("empty_assistant_message", "$.messages[2].content")]),
    ("completion", b'{"prompt": "a", "completion": ""}', [("empty_assistant_message", "$.completion")]),
    ("chat", chat({**USER, "weight": 1}, ANSWER), [("invalid_weight", "$.messages[1].weight")]),
    ("chat", chat(USER, {**ANSWER, "weight": 0.5}), [("invalid_weight", "$.messages[2].weight")]),
    (
        "chat",
        chat({**USER, "content": [{"type": "text", "text": "x"}, IMAGE, IMAGE]}, ANSWER),
        [("image_content", "$.messages[1].content[1]")],
    ),
    (
        "chat",
        chat({**USER, "content": [{"type": "input_audio"}]}, ANSWER),
        [("unsupported_content_part", "$.messages[1].content[0].type")],
    ),
    ("preference", preference([USER, ANSWER]), [("misplaced_role", "$.preferred_output[0].role")]),
    ("preference", preference([]), [("example_missing_assistant_message", "$.preferred_output")]),
    ("preference", preference([ANSWER], [ANSWER]), [("same_outputs", "$.non_preferred_output")]),
    ("preference", preference(...), [("missing_key", "$.preferred_output")]),
    ("preference", preference(input=...), [("missing_key", "$.input")]),
    ("preference", preference(input={"messages": []}), [("empty_messages", "$.input.messages")]),
    ("preference", preference(input={"messages": [SYSTEM, USER], "x": 1}), [("unrecognized_key", "$.input.x")]),
    ("completion", b'{"prompt": "a", "completion": 5}', [("wrong_type", "$.completion")]),
    (
        "chat",
        chat({**USER, "tool_calls": [call()]}, ANSWER),
        [("misplaced_tool_calls", "$.messages[1]"), ("unanswered_tool_call", "$.messages[1].tool_calls[0].id")],
    ),
    (
        "chat",
        chat(USER, calling(call()), result(None), ANSWER),
        [("missing_tool_call_id", "$.messages[3]"), ("unanswered_tool_call", "$.messages[2].tool_calls[0].id")],
    ),
    (
        "chat",
        chat(USER, calling(call()), result(), result("c9"), ANSWER),
        [("unknown_tool_call_id", "$.messages[4].tool_call_id")],
    ),
    ("chat", chat(USER, result(), ANSWER), [("unknown_tool_call_id", "$.messages[2].tool_call_id")]),
    ("chat", chat(USER, calling(call()), ANSWER), [("unanswered_tool_call", "$.messages[2].tool_calls[0].id")]),
    ("chat", chat(USER, calling(call(), call())), [("duplicate_tool_call_id", "$.messages[2].tool_calls[1].id")]),
    (
        "chat",
        chat(USER, calling(call("{n: 1}"))),
        [("tool_arguments_not_json", "$.messages[2].tool_calls[0].function.arguments")],
    ),
    (
        "chat",
        chat(USER, calling(call("[1]"))),
        [("tool_arguments_not_json", "$.messages[2].tool_calls[0].function.arguments")],
    ),
    (
        "chat",
        chat(USER, calling(call('{"n": "1", "m": 2}')), tools=[TOOL]),
        [("tool_arguments_mismatch", "$.messages[2].tool_calls[0].function.arguments")] * 2,
    ),
    (
        "chat",
        chat(USER, calling(call("{}")), tools=[TOOL]),
        [("tool_arguments_mismatch", "$.messages[2].tool_calls[0].function.arguments")],
    ),
    (
        "chat",
        chat(USER, calling(call(name="g")), tools=[TOOL]),
        [("undeclared_tool", "$.messages[2].tool_calls[0].function.name")],
    ),
    ("chat", chat(USER, ANSWER, tools=[{"name": "f"}]), [("invalid_tool", "$.tools[0].function")]),
    ("chat", chat(USER, ANSWER, tools=[TOOL, TOOL]), [("invalid_tool", "$.tools[1].function.name")]),
    (
        "chat",
        chat(USER, ANSWER, functions=[{"name": "f", "parameters": {"type": "obj"}}]),
        [("invalid_tool_schema", "$.functions[0].parameters.type")],
    ),
    (
        "chat",
        chat(USER, ANSWER, tools=[{"type": "function", "function": {"name": f"f{n}"}} for n in range(129)]),
        [("too_many_tools", "$.tools")],
    ),
    ("chat", chat(*[USER, ANSWER] * 1024), [("too_many_messages", "$.messages")]),
    (
        "chat",
        chat(USER, calling(call(), call(id="c2")), parallel_tool_calls=False),
        [("parallel_calls_off", "$.messages[2].tool_calls")],
    ),
    ("chat", preference(), [("mixed_kinds", "$")]),
    ("completion", chat(USER, ANSWER), [("mixed_kinds", "$")]),
    ("chat", chat(ANSWER), [("missing_user_message", "$.messages")]),
    ("chat", json.dumps({"messages": [USER, ANSWER]}).encode(), [("missing_system_message", "$.messages")]),
]


@pytest.mark.parametrize(("kind", "raw", "expected"), BAD, ids=lambda value: None)
def test_every_fault_has_its_rule_and_place(kind: Kind, raw: bytes, expected: list[tuple[str, str | None]]) -> None:
    row, findings = read_row(raw, 6, kind)
    assert places(findings) == expected
    assert {finding.line for finding in findings} == {6}
    assert (row is None) == any(rules.RULES[rule].severity == "error" for rule, _ in expected)


@pytest.mark.parametrize("depth", [99, 101, 300, *range(900, 1010, 3)])
def test_nesting_is_bounded_whatever_the_parsers_own_limit(depth: int) -> None:
    inner = b'{"a":' * (depth - 1) + b"1" + b"}" * (depth - 1)
    raw = b'{"messages": [{"role": "user", "content": "q"}], "tools": [{}], "extra": ' + inner + b"}"
    row, findings = read_row(raw, 1, "reinforcement")
    assert ("deep_nesting" in {finding.rule for finding in findings}) == (depth > 100)
    tool = b'{"type": "function", "function": {"name": "f", "parameters": ' + inner + b"}}"
    raw = chat(USER, ANSWER)[:-1] + b', "tools": [' + tool + b"]}"
    row, findings = read_row(raw, 1, "chat")
    assert (row is None) == (depth > 98)
    assert {finding.rule for finding in findings} == ({"deep_nesting"} if depth > 98 else set())


def test_every_rule_about_a_row_is_seen_here() -> None:
    of_files = {  # test_data_scan
        "compressed_file",
        "not_json_lines",
        "line_too_long",
        "blank_line",
        "inconsistent_keys",
        "kind_not_trainable",
    }
    seen = {rule for _, _, expected in BAD for rule, _ in expected}
    assert seen == {rule.id for rule in (*rules._READING, *rules._STRUCTURE)} - of_files


def test_all_faults_of_a_row_are_found_at_once() -> None:
    raw = chat(
        {"role": "user", "content": 5, "age": 1}, {"role": "assistant", "content": "x", "weight": 2}, extra=1, id=2
    )
    assert places(read_row(raw, 1, "chat")[1]) == [
        ("unrecognized_key", "$.extra"),
        ("unrecognized_key", "$.id"),
        ("message_unrecognized_key", "$.messages[1].age"),
        ("wrong_type", "$.messages[1].content"),
        ("invalid_weight", "$.messages[2].weight"),
    ]


def test_a_row_of_a_million_faults_is_told_briefly() -> None:
    findings = read_row(chat(*[1] * 20_000), 1, "chat")[1]
    assert len(findings) == MAX_ROW_FINDINGS
    assert "And 19,900 more findings in this line" in findings[-1].what


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "x", "answer": "y"}, ["keys found: answer, question", '"content": <question>', "<answer>"]),
        ({"instruction": "x", "input": "", "output": "y"}, ["<instruction, then input>", "<output>"]),
        ({"conversations": [{"from": "human", "value": "x"}]}, ['"conversations" looks like', 'name it "messages"']),
        ({"prompt": "x", "chosen": "y", "rejected": "z"}, ["preference pair", '"preferred_output"']),
        ({"role": "user", "content": "x"}, ["single message"]),
        ({"x" * 5000: 1}, ["keys found: x"]),
    ],
)
def test_rows_of_other_systems_are_told_what_to_write(row: dict[str, Any], words: list[str]) -> None:
    (finding,) = read_row(json.dumps(row).encode(), 1, "chat")[1]
    assert all(word in finding.what for word in words)
    assert len(finding.what) < 500


def test_broken_json_is_told_with_the_usual_reason() -> None:
    def what(raw: bytes) -> str:
        return read_row(raw, 1, "chat")[1][0].what

    assert "Two objects stand in one line" in what(chat(USER, ANSWER) * 2)
    assert "one JSON document over many lines" in what(b"[")
    assert "cut off" in what(chat(USER, ANSWER)[:-20])
    assert "byte-order mark" in what(b"\xef\xbb\xbf{}")
    assert "nested too deeply" in what(b'{"messages":' + b"[" * 100_000)


def test_decoding_raises_the_first_error_and_no_warning() -> None:
    with pytest.raises(DataError, match='Contains an extra "tools2"') as caught:
        decode_row(chat(USER, ANSWER, tools2=[]), 4)
    assert (caught.value.line, caught.value.json_path) == (4, "$.tools2")
    assert caught.value.mend == "Remove the key."
    assert decode_row(chat(ANSWER), 4).messages[-1] == Message("assistant", "a")


def test_a_pair_is_two_conversations_with_only_the_last_answer_learned() -> None:
    weighted = [calling(call()), result(), {**ANSWER, "weight": 0}]
    row = decode_any(
        preference(weighted, input={"messages": [SYSTEM, USER, ANSWER, USER], "tools": [TOOL]}), 1, "preference"
    )
    chosen, rejected = conversations(row)
    assert [m.is_trained() for m in chosen.messages] == [False, False, False, False, False, False, True]
    assert [m.is_trained() for m in rejected.messages] == [False, False, False, False, True]
    assert (chosen.messages[-1].content, rejected.messages[-1].content) == ("a", "b")
    assert chosen.tools == rejected.tools == [TOOL]


def test_old_and_new_names_of_a_pair_are_one() -> None:
    old = preference(..., ..., preferred_completion=[ANSWER], non_preferred_completion=[{**ANSWER, "content": "b"}])
    assert decode_any(old, 1, "preference") == decode_any(preference(), 1, "preference")


def test_old_and_new_names_in_one_row_are_refused() -> None:
    row, findings = read_row(preference(..., preferred_completion=[ANSWER]), 1, "preference")
    assert row is None
    assert [finding.rule for finding in findings] == ["wrong_type"]


@pytest.mark.parametrize("kind", ["chat", "preference", "completion"])
def test_a_row_alone_is_judged_as_what_it_seems(kind: Kind) -> None:
    raw = next(raw for of, raw, _ in GOOD if of == kind)
    assert explain_row(raw, 1) == []


def test_prompts_and_completions_become_conversations() -> None:
    (prompt,) = conversations(decode_any(chat(USER, ANSWER, USER, key=1), 1, "reinforcement"))
    assert not any(message.is_trained() for message in prompt.messages)
    (pair,) = conversations(decode_any(b'{"prompt": "a", "completion": "b"}', 1, "completion"))
    assert pair.messages == [Message("user", "a"), Message("assistant", "b")]


def test_a_schema_of_a_stranger_can_neither_fetch_nor_hang() -> None:
    nasty = [
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#"},
        {"properties": {"n": {"pattern": "(a+)+$"}}},
        {"properties": {"n": {"pattern": "("}}},
        {"patternProperties": {"(a+)+$": {"type": "string"}}, "additionalProperties": False},
    ]
    for schema in nasty:
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        arguments = json.dumps({"n": "a" * 40 + "!", "a" * 40 + "!": 1})
        row, findings = read_row(chat(USER, calling(call(arguments)), tools=[tool]), 1, "chat")
        assert row is not None
        assert {finding.rule for finding in findings} <= {"invalid_tool_schema", "tool_arguments_mismatch"}


def test_no_finding_repeats_a_whole_value() -> None:
    secret = "very private " * 1000
    rows = [
        chat({**USER, "role": secret}, {**ANSWER, secret: 1, "weight": secret}, **{secret: secret}),
        chat(USER, calling({**call(), "type": secret}), tools=secret, parallel_tool_calls=secret),
        chat(
            USER, calling(call(json.dumps({"n": secret}), id=secret), call(name=secret)), result(secret), tools=[TOOL]
        ),
        chat({**USER, "content": [{"type": secret}]}, ANSWER, tools=[{"type": secret}]),
        json.dumps({secret: secret}).encode(),
    ]
    for raw in rows:
        row, findings = read_row(raw, 1, "chat")
        assert row is None
        assert all(len(finding.what) < 400 and len(finding.json_path or "") < 200 for finding in findings)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
MESSAGES = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), TEXT), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(MESSAGES, st.booleans(), st.data())
def test_a_key_that_stands_twice_is_never_missed(
    messages: list[tuple[str, str]], is_ascii: bool, data: st.DataObject
) -> None:
    """Whatever the texts hold: quotes, backslashes, braces, code points written out."""
    pairs = [("system", "s"), *messages, ("user", "u"), ("assistant", "a")]
    parts = [json.dumps({"role": role, "content": text}, ensure_ascii=is_ascii) for role, text in pairs]
    plain = '{"messages": [' + ", ".join(parts) + "]}"
    assert read_row(plain.encode(), 1, "chat") == (ChatRow([Message(role, text) for role, text in pairs]), [])  # type: ignore[arg-type]
    at = data.draw(st.integers(0, len(parts) - 1))
    again = json.dumps(data.draw(TEXT).replace('"', "\x7f"), ensure_ascii=is_ascii).replace("\x7f", "\\u0022")
    parts[at] = '{"content": ' + again + ", " + parts[at][1:]
    _, findings = read_row(('{"messages": [' + ", ".join(parts) + "]}").encode(), 1, "chat")
    assert places(findings) == [("duplicate_key", f"$.messages[{at}].content")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ODD_MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "weight", "name", "tool_calls", "tool_call_id", "function_call", "x"]),
    JSON | st.sampled_from(["user", "assistant", "tool"]),
)
ODD_ROW = st.dictionaries(
    st.sampled_from(
        ["messages", "tools", "functions", "parallel_tool_calls", "input", "preferred_output", "non_preferred_output",
         "prompt", "completion", "x"]
    ),
    JSON | st.lists(ODD_MESSAGE, max_size=4) | st.fixed_dictionaries({"messages": st.lists(ODD_MESSAGE, max_size=3)}),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(ODD_ROW | JSON, st.sampled_from(["chat", "preference", "reinforcement", "completion"]))
def test_no_row_is_so_odd_that_it_is_lost(value: object, kind: Kind) -> None:
    row, findings = read_row(json.dumps(value).encode(), 3, kind)
    errors = [finding for finding in findings if rules.RULES[finding.rule].severity == "error"]
    assert (row is None) == bool(errors)
    assert all(finding.line == 3 and finding.what for finding in findings)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    row, findings = read_row(raw, 3, "chat")
    assert row is None
    assert findings

"""Mending: what is touched, what is not, and that the summary says so."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError, InvalidRequest
from tunesmith.data.mend import FIX_ORDER, MendSummary, mend
from tunesmith.data.read import MAX_LINE_BYTES
from tunesmith.data.row_edit import mask_row, normalise_row, strip_row
from tunesmith.data.rows import Row
from tunesmith.data.rules import FixName


def chat(user: str, assistant: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}], **more}


def run(tmp_path: Path, data: bytes, *fixes: FixName, **options: Any) -> tuple[list[bytes], MendSummary]:
    """The lines of the mended file, with their ends."""
    (tmp_path / "in.jsonl").write_bytes(data)
    summary = mend(tmp_path / "in.jsonl", tmp_path / "out.jsonl", fixes, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    return (tmp_path / "out.jsonl").read_bytes().splitlines(keepends=True), summary


def lines_of(*rows: object, end: bytes = b"\n") -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + end for row in rows)


def test_strip_changes_texts_and_nothing_else(tmp_path: Path) -> None:
    clean = b'  {"messages" :[{"content":"a","role":"user"},{"role":"assistant","content":"b\\u00e9"}]}\t'
    parts = {"role": "user", "content": [{"type": "text", "text": " x "}, {"type": "text", "text": " y"}]}
    padded = {"messages": [parts, {"role": "assistant", "content": "\nyes \n"}]}
    blank = chat("  ", "kept as it is")
    out, summary = run(tmp_path, lines_of(clean, padded, b"", blank, end=b"\r\n"), "strip")
    assert [out[0], out[2], out[3]] == [clean + b"\r\n", b"\r\n", json.dumps(blank).encode() + b"\r\n"]
    assert json.loads(out[1])["messages"][0]["content"][0] == {"type": "text", "text": "x "}
    assert json.loads(out[1])["messages"][0]["content"][1] == {"type": "text", "text": " y"}
    assert json.loads(out[1])["messages"][1]["content"] == "yes"
    assert (summary.num_rows_before, summary.num_rows_after, summary.num_changed, summary.num_dropped) == (3, 3, 1, 0)
    assert [(c.fix, c.num_rows, c.num_places) for c in summary.fixes] == [("strip", 1, 2)]
    (diff,) = summary.diffs
    assert (diff.line, diff.json_path, diff.before, diff.after) == (2, "$.messages[0].content[0].text", " x ", "x ")


@pytest.mark.parametrize(
    ("text", "expected"), [(" yes\n", " yes"), ("  yes", "yes"), ("yes ", "yes"), (" yes", " yes"), ("\n yes", "yes")]
)
def test_the_space_before_a_legacy_completion_stays(tmp_path: Path, text: str, expected: str) -> None:
    out, _ = run(tmp_path, lines_of({"prompt": "q ->", "completion": text}), "strip")
    assert json.loads(out[0])["completion"] == expected


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_a_changed_row_is_written_as_it_was(tmp_path: Path, ascii_only: bool, separators: tuple[str, str]) -> None:
    row = chat("naïve 🙂 ", "ok", tools=[{"type": "function", "function": {"name": "f", "parameters": {"n": 0.1}}}])
    raw = json.dumps(row, ensure_ascii=ascii_only, separators=separators).encode()
    out, _ = run(tmp_path, raw, "strip")
    row["messages"][0]["content"] = "naïve 🙂"
    assert out == [json.dumps(row, ensure_ascii=ascii_only, separators=separators).encode()]


@pytest.mark.parametrize(
    ("role", "normal"),
    [("Bot", "assistant"), ("gpt", "assistant"), ("MODEL ", "assistant"), ("Human", "user"), ("User", "user")],
)
def test_roles_are_normalised(tmp_path: Path, role: str, normal: str) -> None:
    row = {"messages": [{"role": "Developer", "content": "d"}, {"role": role, "content": "c"}]}
    out, summary = run(tmp_path, lines_of(row), "normalise_roles")
    assert [message["role"] for message in json.loads(out[0])["messages"]] == ["developer", normal]
    assert summary.fixes[0].num_places == 2


def test_roles_that_nobody_knows_stay_and_preferences_are_reached(tmp_path: Path) -> None:
    odd = {"messages": [{"role": "narrator", "content": "c"}, {"role": 7, "content": "d"}]}
    pair = {
        "input": {"messages": [{"role": "human", "content": "q"}]},
        "preferred_output": [{"role": "gpt", "content": "a"}],
        "non_preferred_completion": [{"role": "gpt", "content": "b"}],
    }
    out, _ = run(tmp_path, lines_of(odd, pair), "normalise_roles")
    assert out[0] == lines_of(odd)
    assert json.dumps(json.loads(out[1])).count('"assistant"') == 2


def test_rows_with_errors_are_dropped_after_their_roles_were_mended(tmp_path: Path) -> None:
    mendable = {"messages": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]}
    bad = {"messages": [{"role": "user", "content": "q"}]}
    data = lines_of(chat("1", "2"), b"{broken", mendable, bad, b'{"messages": [], "messages": []}', chat("3", "4"))
    out, summary = run(tmp_path, data, "drop_rows", "normalise_roles")
    assert [json.loads(line)["messages"][0]["content"] for line in out] == ["1", "q", "3"]
    assert (summary.num_rows_before, summary.num_changed, summary.num_dropped) == (6, 1, 3)
    dropped = [diff for diff in summary.diffs if diff.fix == "drop_rows"]
    assert [(diff.line, diff.after) for diff in dropped] == [(2, None), (4, None), (5, None)]
    assert all(diff.reason for diff in dropped)
    assert "No " not in (out[0] + out[2]).decode()


def test_further_errors_can_be_given(tmp_path: Path) -> None:
    def too_long(_row: Row, line: int, num_bytes: int) -> str | None:
        return f"too long: {num_bytes} bytes" if line == 2 else None

    out, summary = run(tmp_path, lines_of(chat("1", "2"), chat("3", "4")), "drop_rows", row_errors=too_long)
    assert out == [lines_of(chat("1", "2"))]
    assert summary.diffs[0].reason is not None
    assert summary.diffs[0].reason.startswith("too long")


def test_chosen_lines_are_dropped_and_no_others(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + lines_of(chat("1", "2"), b"", b"{broken", chat("3", "4"))
    out, summary = run(tmp_path, data, "drop_rows", lines=[1, 4])
    assert out == [b"\xef\xbb\xbf\n", b"{broken\n"]
    assert (summary.num_rows_before, summary.num_rows_after) == (3, 1)


def test_duplicates_are_dropped_whatever_their_spelling_and_the_first_stays(tmp_path: Path) -> None:
    spelled = b'{"messages":[{"content":"\\u0071","role":"user"},{"role":"assistant","content":"a"}]}'
    data = lines_of(chat("q", "a"), chat("q", "b"), spelled, chat("q", "b"), b"{broken", b"{broken")
    out, summary = run(tmp_path, data, "deduplicate")
    assert b"".join(out) == lines_of(chat("q", "a"), chat("q", "b"), b"{broken", b"{broken")
    assert [diff.reason for diff in summary.diffs] == ["It repeats line 1.", "It repeats line 2."]


def test_rows_that_stripping_makes_equal_are_duplicates(tmp_path: Path) -> None:
    out, summary = run(tmp_path, lines_of(chat("q", "a"), chat("q ", "a")), "deduplicate", "strip")
    assert out == [lines_of(chat("q", "a"))]
    assert (summary.num_changed, summary.num_dropped) == (0, 1)


def test_personal_data_is_masked_and_not_shown(tmp_path: Path) -> None:
    secret = "jane.doe@example.com"
    out, summary = run(tmp_path, lines_of(chat(f"Write to {secret} ", "ok")), "mask_personal_data", "strip")
    assert json.loads(out[0])["messages"][0]["content"] == "Write to [EMAIL]"
    assert {count.fix: count.num_places for count in summary.fixes} == {"strip": 1, "mask_personal_data": 1}
    assert all(secret not in diff.before and secret not in str(diff.after) for diff in summary.diffs)
    masked = next(diff for diff in summary.diffs if diff.fix == "mask_personal_data")
    assert masked.before != masked.after


@pytest.mark.parametrize(
    ("arguments", "masked"),
    [
        ('{"to": "jane@example.com", "n": 2}', '{"to": "[EMAIL]", "n": 2}'),
        ('{"card": 4111111111111111}', '{"card": "[CARD]"}'),
        ('{"cards":[4111111111111111, "4111 1111 1111 1111"]}', '{"cards":["[CARD]", "[CARD]"]}'),
        ("not JSON: jane@example.com", "not JSON: [EMAIL]"),
    ],
)
def test_arguments_are_masked_and_stay_json(tmp_path: Path, arguments: str, masked: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": arguments}}
    row = {"messages": [{"role": "assistant", "tool_calls": [call], "function_call": call["function"]}]}
    out, _ = run(tmp_path, lines_of(row), "mask_personal_data")
    message = json.loads(out[0])["messages"][0]
    assert message["tool_calls"][0]["function"]["arguments"] == masked
    assert message["function_call"]["arguments"] == masked


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":[{"role":"user","content":" q "},{"role":"assistant","content":"a","content":" b "}]}',
        b'{"messages":[{"role":"user","content":" q "},{"role":"assistant","content":"a","weight":NaN}]}',
        b'{"messages":[{"role":"user","content":" q "},{"role":"assistant","content":"a"}],"x":1e999}',
        b'{"messages":[{"role":"user","content":" q "}',
        b'{"messages":[{"role":"user","content":" \xff "}]}',
        b'{"messages":[{"role":"user","content":" q "}],"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages":[{"role":"user","content":" half \\ud83d "}]}',
        b'[" a "]',
        b'{"messages":" a "}',
        b'{"messages":[" a ",null,{"content":[" a ",{"text":7}]}],"input":7}',
    ],
)
def test_what_cannot_be_read_without_a_loss_is_not_written(tmp_path: Path, raw: bytes) -> None:
    edits: tuple[FixName, ...] = ("strip", "normalise_roles", "mask_personal_data")
    out, summary = run(tmp_path, raw + b"\n", *edits)
    assert out == [raw + b"\n"]
    assert summary.is_unchanged
    assert summary.num_unreadable_rows == (raw[:1] != b"[" and raw[-1:] != b"7" and b'" a "' not in raw)


def test_rows_that_cannot_be_read_are_counted_unless_they_are_dropped(tmp_path: Path) -> None:
    twice = b'{"messages": [{"role": "user", "content": "jane@example.com"}], "messages": []}'
    too_large = b'{"messages": [{"role": "user", "content": "jane@example.com"}], "x": 1e999}'
    too_long = b'{"messages": "' + b"x" * (2 * MAX_LINE_BYTES) + b'"}'
    data = lines_of(chat("1", "a@b.de"), twice, b"", too_large, too_long, b"7")
    out, summary = run(tmp_path, data, "strip", "mask_personal_data")
    assert out[1:] == data.splitlines(keepends=True)[1:]
    assert (summary.num_changed, summary.num_unreadable_rows) == (1, 4)
    _, summary = run(tmp_path, data, "mask_personal_data", "drop_rows", lines=[2, 5])
    assert (summary.num_dropped, summary.num_unreadable_rows) == (2, 2)


def test_every_string_but_what_the_form_fixes_is_masked(tmp_path: Path) -> None:
    mail = "jane@example.com"
    call = {"id": mail, "type": "function", "function": {"name": mail, "arguments": json.dumps({"to": mail})}}
    parameters = {"type": "object", "properties": {"name": {"type": "string", "description": mail, "enum": [mail]}}}
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": mail}], "name": mail},
            {"role": "assistant", "tool_calls": [call], "refusal": mail},
            {"role": "tool", "tool_call_id": mail, "content": '{"found": [4111111111111111, "4111111111111111, or"]}'},
            {"role": "assistant", "function_call": {"name": mail, "arguments": mail}},
        ],
        "tools": [{"type": "function", "function": {"name": mail, "description": mail, "parameters": parameters}}],
        "functions": [{"name": mail, "description": mail}],
        "reference_answer": mail,
        "grading": {"id": mail, "of": [mail, {"name": mail}], mail: 1},
    }
    out, summary = run(tmp_path, lines_of(row), "mask_personal_data")
    found = json.loads(out[0])
    user, calling, result, old = found["messages"]
    assert user == {"role": "user", "content": [{"type": "text", "text": "[EMAIL]"}], "name": "[EMAIL]"}
    kept = {**call, "function": {"name": mail, "arguments": json.dumps({"to": "[EMAIL]"})}}
    assert (calling["tool_calls"], calling["refusal"]) == ([kept], "[EMAIL]")
    assert result["tool_call_id"] == mail
    assert json.loads(result["content"]) == {"found": ["[CARD]", "[CARD], or"]}
    assert old["function_call"] == {"name": mail, "arguments": "[EMAIL]"}
    function = found["tools"][0]["function"]
    assert (function["name"], function["description"]) == (mail, "[EMAIL]")
    assert function["parameters"]["properties"]["name"] == {
        "type": "string",
        "description": "[EMAIL]",
        "enum": ["[EMAIL]"],
    }
    assert found["functions"] == [{"name": mail, "description": "[EMAIL]"}]
    assert found["reference_answer"] == "[EMAIL]"
    assert found["grading"] == {"id": "[EMAIL]", "of": ["[EMAIL]", {"name": "[EMAIL]"}], mail: 1}
    assert summary.fixes[0].num_places == 14


def test_numbers_survive_a_change(tmp_path: Path) -> None:
    raw = b'{"messages": [{"content": " q "}], "big": 123456789012345678901234567890, "small": 1.5e-07}'
    out, _ = run(tmp_path, raw, "strip")
    assert out == [raw.replace(b'" q "', b'"q"')]


def test_every_byte_that_no_fix_touched_stays(tmp_path: Path) -> None:
    before = (
        rb'{ "messages" :[{"role":"user","content":"\u00e9 \/ \ud83d\ude42 \" a@b.de \/ \\ \u00E9 c@d.de\n\u0041"},'
        rb' {"r\u006fle":"GPT" , "c\u006fntent":" \t\u0020 caf\u00e9 \/ "}],"n":[1.10, 1e5, 0.1234567890123456789, -0,'
        rb" 1E-7,12345678901234567890123]}"
    )
    after = before.replace(b"a@b.de", b"[EMAIL]").replace(b"c@d.de", b"[EMAIL]").replace(b"GPT", b"assistant")
    after = after.replace(rb'" \t\u0020 caf', b'"caf').replace(rb'9 \/ "', rb'9 \/"')
    out, summary = run(tmp_path, before, "mask_personal_data", "normalise_roles", "strip")
    assert out == [after]
    assert (summary.num_changed, summary.num_unreadable_rows) == (1, 0)


def test_a_line_too_long_to_be_a_row_is_copied_or_dropped(tmp_path: Path) -> None:
    long = b'{"messages": "' + b"x" * (2 * MAX_LINE_BYTES) + b'"}'
    data = lines_of(chat("1", "2 "), long, chat("3", "4"))
    out, _ = run(tmp_path, data, "strip")
    assert out[1] == long + b"\n"
    out, summary = run(tmp_path, data, "drop_rows")
    assert (len(out), summary.num_dropped) == (2, 1)


@pytest.mark.parametrize(
    ("fixes", "options", "words"),
    [
        ((), {}, "No fix"),
        (("polish",), {}, "polish"),
        (("strip",), {"lines": [1]}, "drop_rows"),
        (("drop_rows",), {"lines": [0]}, "line 0"),
        (("drop_rows",), {"lines": [1, 3]}, "line 3"),
        (("drop_rows",), {"lines": [1, 2]}, "No row"),
    ],
)
def test_impossible_wishes_are_refused(
    tmp_path: Path, fixes: tuple[FixName, ...], options: dict[str, Any], words: str
) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines_of(chat("1", "2"), chat("3", "4")))
    with pytest.raises(InvalidRequest) as caught:
        mend(tmp_path / "in.jsonl", tmp_path / "out.jsonl", fixes, **options)
    assert words in caught.value.message
    assert caught.value.mend
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_compressed_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gzip"):
        run(tmp_path, b"\x1f\x8b\x08\x00rest", "strip")


JUNK = st.one_of(
    st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b" ")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["messages", "role", "content", "input", "text", "prompt"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode()),
    st.builds(chat, st.text(max_size=8), st.text(max_size=8)).map(lambda row: json.dumps(row).encode()),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(JUNK, min_size=1, max_size=8), st.sets(st.sampled_from(FIX_ORDER[:3]), min_size=1), st.booleans())
def test_mending_twice_changes_nothing_more(
    tmp_path: Path, rows: list[bytes], fixes: set[FixName], has_last_end: bool
) -> None:
    """Any bytes go through; a line that is not counted as changed is the same; a second pass finds nothing."""
    data = b"\n".join(rows) + (b"\n" if has_last_end else b"")
    (tmp_path / "in.jsonl").write_bytes(data)
    try:
        first = mend(tmp_path / "in.jsonl", tmp_path / "once.jsonl", sorted(fixes))
    except DataError:  # it begins as an archive or UTF-16 does
        reject()
    once = (tmp_path / "once.jsonl").read_bytes()
    before, after = data.split(b"\n"), once.split(b"\n")
    assert len(before) == len(after)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == first.num_changed
    second = mend(tmp_path / "once.jsonl", tmp_path / "twice.jsonl", sorted(fixes))
    assert second.is_unchanged
    assert (tmp_path / "twice.jsonl").read_bytes() == once


NUMBERS = st.sampled_from(["1.10", "1e5", "-0", "0.1234567890123456789", "1E-7", "12345678901234567890123", "0.0"])
SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", '"': '\\"', "\\": "\\\\", "/": "\\/"}


@st.composite
def written(draw: st.DrawFn, text: str) -> str:
    """A text as JSON may write it: each character plain where it may be, or escaped in one of its ways."""
    pieces = []
    for character in text:
        units = character.encode("utf-16-be").hex()
        escaped = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
        ways = [character] if character >= " " and character not in '"\\' else []
        ways += [SHORT[character]] if character in SHORT else []
        pieces.append(draw(st.sampled_from([*ways, escaped, escaped.replace("d", "D")])))
    return "".join(pieces)


@st.composite
def odd_rows(draw: st.DrawFn) -> tuple[str, str, str]:
    """A row with odd spaces, numbers and escapes; the same stripped; the same masked."""
    odd = st.text('x\n\b"\\/🙂é[]{}:, ', max_size=5).map(lambda text: f"x {text} x")
    space = st.sampled_from(["", " ", "\t "])
    rows = ["", "", ""]
    for _ in range(draw(st.integers(1, 3))):
        ends = [draw(written(draw(st.sampled_from(["", " ", "\n\t", "\u3000"])))) for _ in range(2)]
        around = [draw(written(draw(odd))) for _ in range(2)]
        mail = draw(written("a@b.de"))
        texts = (
            f"{ends[0]}{around[0]} {mail} {around[1]}{ends[1]}",
            f"{around[0]} {mail} {around[1]}",
            f"{ends[0]}{around[0]} [EMAIL] {around[1]}{ends[1]}",
        )
        members = [f'"content"{draw(space)}:{draw(space)}"%s"', f'"role":{draw(space)}"us\\u0065r"']
        members += [f'"n":{draw(NUMBERS)}'] * draw(st.integers(0, 1))
        message = "{" + f"{draw(space)},{draw(space)}".join(draw(st.permutations(members))) + "}, "
        rows = [row + message % text for row, text in zip(rows, texts, strict=True)]
    tail = f'{{}}], "n": [{draw(NUMBERS)}, "\\/"]}}'
    before, stripped, masked = (f'{{"messages":[{row}{tail}' for row in rows)
    return before, stripped, masked


@settings(max_examples=200, deadline=None)
@given(odd_rows())
def test_a_change_touches_nothing_but_its_piece(rows: tuple[str, str, str]) -> None:
    before, stripped, masked = rows
    for edit, after in ((strip_row, stripped), (mask_row, masked), (normalise_row, before)):
        edited = edit(before.encode())
        assert edited is not None
        assert edited[0].decode() == after
        assert bool(edited[1]) == (before != after)

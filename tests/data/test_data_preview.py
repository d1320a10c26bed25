"""What is shown is what is trained: the same tokens, the same marks, the same digest."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenised import tokenise_file

import tiny
from tunesmith.core.errors import DataError, NotFound
from tunesmith.data.digest import row_digest
from tunesmith.data.formats import ChatRow, CompletionRow, Kind, Message, Row, decode_any, decode_row
from tunesmith.data.preview import preview, preview_line
from tunesmith.data.tokens import RowTokenizer

USER, GOOD, POOR = ({"role": role, "content": text} for role, text in
                    (("user", "red"), ("assistant", "blue"), ("assistant", "green")))  # fmt: skip
ROWS: dict[Kind, dict[str, object]] = {
    "chat": {"messages": [USER, GOOD]},
    "preference": {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [POOR]},
    "reinforcement": {"messages": [USER], "answer": 4},
    "completion": {"prompt": "red", "completion": "blue"},
}


@pytest.fixture(scope="module")
def any_tokenizer(tiny_folder: Path) -> RowTokenizer:
    """Takes every kind of row."""
    return RowTokenizer.from_dir(tiny_folder, completions="chat")


def row_of(kind: Kind) -> Row:
    return decode_any(msgspec.json.encode(ROWS[kind]), 1, kind)


def marked(shown: object, mark: str) -> list[str]:
    return ["".join(token.text for token in sequence.tokens if token.mark == mark) for sequence in shown.sequences]


@given(st.lists(st.tuples(st.text(max_size=30), st.text(min_size=1, max_size=30)), min_size=1, max_size=3))
def test_shown_is_trained(tokenizer: RowTokenizer, turns: list[tuple[str, str]]) -> None:
    row = ChatRow([m for u, a in turns for m in (Message("user", u), Message("assistant", a))])
    (sequence,) = tokenizer.encode_row(row, 1)
    shown = preview(row, tokenizer, 1)
    (tokens,) = (sequence.tokens for sequence in shown.sequences)
    assert [token.id for token in tokens] == sequence.token_ids.tolist()
    assert [token.mark == "trained" for token in tokens] == [mark == 1 for mark in sequence.is_trained]
    assert shown.digest == row_digest([sequence]).hex()
    assert (shown.num_tokens, shown.num_supervised_tokens) == (len(tokens), sequence.num_supervised_tokens)
    assert "".join(token.text for token in tokens) + "\n" == shown.conversations[0].rendered


def test_marks(tokenizer: RowTokenizer) -> None:
    shown = preview(decode_row(tiny.chat_lines(1)[0], 1), tokenizer, 1)
    assert set(marked(shown, "special")[0].split("<|im_")) == {"", "start|>", "end|>"}
    assert marked(shown, "trained")[0].endswith("<|im_end|>")
    assert [token.is_special for token in shown.sequences[0].tokens if token.mark == "trained"][-1]
    assert marked(shown, "context")[0].startswith("system\nYou answer")


def test_preferences_show_both_conversations(any_tokenizer: RowTokenizer) -> None:
    shown = preview(row_of("preference"), any_tokenizer, 1)
    assert [sequence.output for sequence in shown.sequences] == ["preferred", "rejected"]
    assert marked(shown, "trained") == ["blue<|im_end|>", ""]
    assert marked(shown, "rejected") == ["", "green<|im_end|>"]
    assert preview(row_of("chat"), any_tokenizer, 1).sequences[0].output is None
    assert [c.messages[-1]["content"] for c in shown.conversations] == ["blue", "green"]


def test_a_reinforcement_prompt_is_what_a_server_feeds(any_tokenizer: RowTokenizer) -> None:
    shown = preview(row_of("reinforcement"), any_tokenizer, 1)
    assert shown.num_supervised_tokens == 0
    assert [token.id for token in shown.sequences[0].tokens] == any_tokenizer.encode_prompt([USER])
    assert shown.conversations[0].rendered.endswith("<|im_start|>assistant\n")


def test_completions_as_chat_and_plain(any_tokenizer: RowTokenizer, tiny_folder: Path) -> None:
    row = CompletionRow("red ", "blue")
    assert preview(row, any_tokenizer, 1).conversations[0].rendered.startswith("<|im_start|>user\nred <|im_end|>")
    shown = preview(row, RowTokenizer.from_dir(tiny_folder, completions="plain"), 1)
    assert (marked(shown, "context"), marked(shown, "trained")) == (["red "], ["blue<|im_end|>"])
    assert shown.conversations[0].rendered == "red blue"


def test_completions_without_the_option_are_refused(tokenizer: RowTokenizer) -> None:
    with pytest.raises(DataError, match='"completions": "chat"'):
        preview(row_of("completion"), tokenizer, 1)


@pytest.mark.parametrize("kind", ROWS)
def test_a_line_of_any_file(tmp_path: Path, any_tokenizer: RowTokenizer, kind: Kind) -> None:
    raw = msgspec.json.encode(ROWS[kind])
    path = tiny.write_lines(tmp_path / "rows.jsonl", [raw, b"", raw])
    shown = preview_line(path, 3, any_tokenizer)
    assert (shown.line, shown.kind) == (3, kind)
    assert shown.digest == bytes(tokenise_file(path, any_tokenizer, limit=512).digests[1]).hex()
    for line in (0, 2, 4, -1):
        with pytest.raises(NotFound, match="no row on line"):
            preview_line(path, line, any_tokenizer)


def test_a_bad_line_says_why(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    path = tiny.write_lines(tmp_path / "rows.jsonl", [*tiny.chat_lines(3), b'{"messages": []}'])
    with pytest.raises(DataError, match="messages is empty"):
        preview_line(path, 4, tokenizer)

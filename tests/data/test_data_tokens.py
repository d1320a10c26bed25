"""Masks and token ids: what is learned is exactly what a server would have to say."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import tiny
from tunesmith.core.errors import DataError
from tunesmith.data.formats import ChatRow, Message, decode_row
from tunesmith.data.render import ChatTemplate
from tunesmith.data.tokens import RowTokenizer

CATALOG = Path(__file__).parents[2] / "src" / "tunesmith" / "catalog" / "templates"
# What Qwen3 does: reasoning of earlier turns is dropped from the context.
DROPS_EARLIER_THOUGHTS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_END_OF_TURN = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def row(*messages: dict[str, object], **keys: object) -> ChatRow:
    return decode_row(msgspec.json.encode({"messages": messages, **keys}), 1)


def user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: str, **keys: object) -> dict[str, object]:
    return {"role": "assistant", "content": text, **keys}


def with_template(folder: Path, source: str) -> RowTokenizer:
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return RowTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), ChatTemplate(source, names))


def learned_text(tokenizer: RowTokenizer, folder: Path, chat: ChatRow) -> list[str]:
    """The runs of learned tokens, as text."""
    decode = Tokenizer.from_file(str(folder / "tokenizer.json")).decode
    runs: list[list[int]] = []
    for sequence in tokenizer.encode_row(chat, 1):
        was = False
        for token_id, learn in zip(sequence.token_ids, sequence.is_trained, strict=True):
            if learn:
                runs.append([]) if not was else None
                runs[-1].append(token_id)
            was = learn
    return [decode(run, skip_special_tokens=False) for run in runs]


def test_every_answer_is_learned_with_its_end(tokenizer: RowTokenizer, tiny_folder: Path) -> None:
    chat = row({"role": "system", "content": "s"}, user("a"), assistant("one"), user("b"), assistant("two three"))
    assert learned_text(tokenizer, tiny_folder, chat) == ["one<|im_end|>", "two three<|im_end|>"]


def test_weight_zero_is_context(tokenizer: RowTokenizer, tiny_folder: Path) -> None:
    chat = row(user("a"), assistant("one", weight=0), user("b"), assistant("two", weight=1))
    assert learned_text(tokenizer, tiny_folder, chat) == ["two<|im_end|>"]


def test_nothing_follows_the_last_learned_token(tokenizer: RowTokenizer) -> None:
    chat = row(user("a"), assistant("one"), user("b"), assistant("two", weight=0))
    (sequence,) = tokenizer.encode_row(chat, 1)
    assert sequence.is_trained[-1]


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.text(min_size=1, max_size=30), st.sampled_from([0, 1, None])),
        min_size=1,
        max_size=4,
    )
)
def test_the_context_of_an_answer_is_the_servers_prompt(
    tokenizer: RowTokenizer, turns: list[tuple[str, str, int | None]]
) -> None:
    """Whatever the texts: the ids before the first answer are what a server feeds, the learned ids what it must say."""
    messages = [m for u, a, w in turns for m in (Message("user", u), Message("assistant", a, weight=w))]
    chat = ChatRow(messages)
    if not any(message.is_trained() for message in messages):
        return
    (sequence,) = tokenizer.encode_row(chat, 1)
    prompt = tokenizer.encode_prompt(chat.template_messages()[:1])
    assert sequence.token_ids[: len(prompt)].tolist() == prompt
    assert not any(sequence.is_trained[: len(prompt)])
    last = max(i for i, message in enumerate(messages) if message.is_trained())
    whole = tokenizer.template.render(chat.template_messages()[: last + 1], None, add_generation_prompt=False)
    assert sequence.token_ids.tolist() == tokenizer.encode(whole)[: len(sequence.token_ids)]


@given(st.text(max_size=60), st.sampled_from(["", "<|im_end|>", "<|im_start|>user\n"]), st.text(max_size=60))
def test_cached_pieces_give_the_ids_of_the_whole(
    tokenizer: RowTokenizer, tiny_folder: Path, a: str, special: str, b: str
) -> None:
    whole = (
        Tokenizer.from_file(str(tiny_folder / "tokenizer.json")).encode(a + special + b, add_special_tokens=False).ids
    )
    assert tokenizer.encode(a + special + b) == whole
    assert tokenizer.encode(a + special + b) == whole, "a second time, from the cache"


def test_a_template_that_rewrites_earlier_turns_gives_a_sequence_for_each_answer(tiny_folder: Path) -> None:
    tokenizer = with_template(tiny_folder, DROPS_EARLIER_THOUGHTS)
    chat = row(user("a"), assistant("why</think>one"), user("b"), assistant("so</think>two"))
    sequences = tokenizer.encode_row(chat, 1)
    assert len(sequences) == 2
    assert learned_text(tokenizer, tiny_folder, chat) == ["why</think>one<|im_end|>", "so</think>two<|im_end|>"]
    for sequence, before in zip(sequences, (1, 3), strict=True):
        prompt = tokenizer.encode_prompt(chat.template_messages()[:before])
        assert sequence.token_ids[: len(prompt)].tolist() == prompt


def test_a_template_without_an_end_of_turn_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(DataError, match="never stop"):
        with_template(tiny_folder, NO_END_OF_TURN).encode_row(row(user("a"), assistant("b")), 3)


def test_a_template_that_refuses_the_row_names_the_line(tiny_folder: Path) -> None:
    source = "{{ raise_exception('no such role here') }}"
    with pytest.raises(DataError, match="no such role here") as caught:
        with_template(tiny_folder, source).encode_row(row(user("a"), assistant("b")), 7)
    assert caught.value.line == 7


def test_tools_and_their_calls_are_rendered_and_learned(tiny_folder: Path) -> None:
    tokenizer = with_template(tiny_folder, (CATALOG / "chatml-tools.jinja").read_text())
    call = {"id": "c1", "type": "function", "function": {"name": "move", "arguments": '{"to": "desk"}'}}
    tools = [{"type": "function", "function": {"name": "move", "parameters": {"type": "object"}}}]
    chat = row(
        user("go"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        assistant("open"),
        tools=tools,
    )
    said = '<tool_call>\n{"name": "move", "arguments": {"to": "desk"}}\n</tool_call><|im_end|>'
    assert learned_text(tokenizer, tiny_folder, chat) == [said, "open<|im_end|>"]
    text = tokenizer.template.render(chat.template_messages(), chat.template_tools(), add_generation_prompt=False)
    assert '"name": "move", "parameters"' in text
    assert "<tool_response>\ndone\n</tool_response>" in text


def test_old_function_rows_become_tools(tokenizer: RowTokenizer) -> None:
    chat = row(
        user("go"),
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        assistant("x"),
        functions=[{"name": "f"}],
    )
    roles = [message["role"] for message in chat.template_messages()]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert chat.template_tools() == [{"type": "function", "function": {"name": "f"}}]


def test_tiny_rows_have_no_double_start(tokenizer: RowTokenizer) -> None:
    (sequence,) = tokenizer.encode_row(decode_row(tiny.chat_lines(1)[0], 1), 1)
    assert sequence.token_ids[0] == 1
    assert sequence.token_ids[1] != 1

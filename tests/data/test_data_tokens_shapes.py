"""A row filled into its shape is the row that the template renders, whatever the template does with a content."""

from datetime import date
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import tiny
from tunesmith.core.errors import DataError
from tunesmith.data.formats import ChatRow, Message
from tunesmith.data.render import ChatTemplate
from tunesmith.data.tokens import RowTokenizer, TokenSequence

START, END = "{{ '<|im_start|>' + m['role'] + '\\n' }}", "{{ '<|im_end|>\\n' }}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def looped(said: str, before: str = "") -> str:
    return f"{before}{{% for m in messages %}}{START}{said}{END}{{% endfor %}}{ASK}"


PLAIN = {
    "chatml": tiny.CHATML,
    "catalog": (resources.files("tunesmith.catalog") / "templates" / "chatml-tools.jinja").read_text(),
    "joined": looped("{{ m['content'] ~ '' }}"),
    "told_when_empty": looped("{% if m['content'] %}{{ m.content }}{% else %}{{ '(nothing)' }}{% endif %}"),
    "twice": looped("{{ m['content'] + ' / ' + m['content'] }}"),
    "first_is_system": looped("{% if loop.first and m['role'] == 'system' %}{{ 'S: ' }}{% endif %}{{ m['content'] }}"),
}
LOOKING = {
    "trimmed": looped("{{ m['content'] | trim }}"),
    "thoughts": looped("{{ m['content'].split('</think>')[-1] if not loop.last else m['content'] }}"),
    "startswith": looped("{% if m['content'].startswith('<tool_response>') %}{{ '!' }}{% endif %}{{ m['content'] }}"),
    "contains": looped("{% if '?' in m['content'] %}{{ '?!' }}{% endif %}{{ m['content'] }}"),
    "equal": looped("{% if m['content'] == 'a' %}{{ '=' }}{% endif %}{{ m['content'] }}"),
    "length": looped("{{ m['content'] | length }}{{ m['content'] }}"),
    "escaped": looped("{{ m['content'] | e }}"),
    "quoted": looped("{{ m['content'] | tojson }}"),
    "upper": looped("{{ (m['content'] ~ '') | upper }}"),
    "cut": looped("{{ (m['content'] ~ '')[:9] }}"),
    "refusing": looped("{% if 'x' in m['content'] ~ '' %}{{ raise_exception('no x') }}{% endif %}{{ m['content'] }}"),
}
TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "a",
            " a ",
            "\n",
            "?",
            "x",
            "<think>b</think>c",
            "</think>",
            "<tool_response>",
            "<|im_end|>",
            "<|im_",
            "&<>\"'",
            "é🙂",
        ]
    ),
)
ROW = st.lists(st.tuples(TEXT, TEXT, st.sampled_from([0, None])), min_size=1, max_size=3)


@pytest.fixture(scope="module", params=[*PLAIN, *LOOKING])
def pair(request: pytest.FixtureRequest, tiny_folder: Path) -> tuple[RowTokenizer, RowTokenizer]:
    """With shapes and without."""
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    template = ChatTemplate((PLAIN | LOOKING)[request.param], names)
    fast, slow = (RowTokenizer(Tokenizer.from_file(str(tiny_folder / "tokenizer.json")), template) for _ in range(2))
    slow._shapes = None
    return fast, slow


def chat(turns: list[tuple[str, str, int | None]], system: str | None) -> ChatRow:
    said = [m for u, a, w in turns for m in (Message("user", u), Message("assistant", a or "b", weight=w))]
    said[-1] = Message("assistant", said[-1].content)
    return ChatRow([Message("system", system), *said] if system is not None else said)


def tokens(tokenizer: RowTokenizer, row: ChatRow) -> list[TokenSequence] | str:
    try:
        return tokenizer.encode_row(row, 1)
    except DataError as error:
        return str(error)


@given(turns=ROW, system=st.one_of(st.none(), TEXT))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shapes_change_nothing(
    pair: tuple[RowTokenizer, RowTokenizer], turns: list[tuple[str, str, int | None]], system: str | None
) -> None:
    fast, slow = pair
    row = chat(turns, system)
    expected = tokens(slow, row)
    for time in ("first", "second", "third"):
        assert tokens(fast, row) == expected, time


def is_filled(tokenizer: RowTokenizer) -> bool:
    row = chat([("what", "that", None)], "be brief")
    tokens(tokenizer, row), tokens(tokenizer, row)
    assert tokenizer._shapes is not None
    return tokenizer._shapes.encode(row) is not None


@pytest.mark.parametrize(
    ("source", "filled"), [(s, True) for s in PLAIN.values()] + [(s, False) for s in LOOKING.values()]
)
def test_only_templates_that_place_contents_are_filled(tiny_folder: Path, source: str, filled: bool) -> None:
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    tokenizer = RowTokenizer(Tokenizer.from_file(str(tiny_folder / "tokenizer.json")), ChatTemplate(source, names))
    assert is_filled(tokenizer) == filled


def test_a_template_with_a_date_renders_all_rows_on_one_day(tiny_folder: Path) -> None:
    source = looped("{{ m['content'] }}", before="{{ strftime_now('%d %b %Y') }}")

    def tokenizer(day: date | None) -> RowTokenizer:
        template = ChatTemplate(source, {}, day)
        return RowTokenizer(Tokenizer.from_file(str(tiny_folder / "tokenizer.json")), template)

    monday, tuesday, today = (tokenizer(day) for day in (date(2025, 11, 23), date(2025, 11, 24), None))
    row = chat([("what", "that", None)], None)
    assert "23 Nov 2025" in "".join(monday.token_texts(monday.encode_row(row, 1)[0].token_ids))
    assert tokenizer(date(2025, 11, 23)).encode_row(row, 1) == monday.encode_row(row, 1) != tuesday.encode_row(row, 1)
    assert len({monday.identity, tuesday.identity, today.identity}) == 3


def test_tools_belong_to_the_shape(tools_tokenizer: RowTokenizer) -> None:
    def row(name: str | None) -> ChatRow:
        tools = None if name is None else [{"type": "function", "function": {"name": name}}]
        return ChatRow([Message("user", "go"), Message("assistant", "gone")], tools=tools)

    for _ in range(3):
        ids = [tools_tokenizer.encode_row(row(name), 1)[0].token_ids for name in ("move", "claim", None)]
        assert len({tuple(some) for some in ids}) == 3

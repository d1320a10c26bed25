"""Token ids are Hugging Face's, whatever the text and whatever the tokenizer."""

import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_tokenizers import FAST, SLOW
from tokenizers import Tokenizer

from tunesmith.data.words import TextEncoder, unpack

EMBEDDED = Path(__file__).parents[2] / ".cache/tunesmith/models/base/smollm2-135m-instruct/tokenizer.json"
KINDS = [*FAST, *SLOW, "smollm2"]
_ENCODERS: dict[str, tuple[TextEncoder, Tokenizer]] = {}

FRAGMENTS = st.sampled_from(
    [
        *("'s", "'S", "'ll", "'LL", "'ſ", "’s", "I'm", "we've", "x'", "''t"),
        *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\x0b", "\x1c", "\x85", "\xa0", "\u2003", "\u3000", "\ufeff"),
        *("1", "12", "1234", "٣٤", "½", "²", "Ⅷ", "〇", "𝟘𝟙"),
        *("e\u0301", "\u0301", "\u0303\u0303", "क्षि", "한", "각", "Å", "ﬁ", "ǅ", "ß"),
        *("🙂", "👩🏽\u200d🚀", "🇩🇪", "\ufe0f", "日本", "中文字", "русский"),
        *("<|im_end|>", "<|im_start|>", "<|im_", "end|>", "<tool_call>", "<|endoftext|>", "<mask>", " <mask> "),
        *("the", " quick", "Hello", "!?", "...", "_-_", "{}", '"', "\\", "\x00", "\u0378", "\U000e0100", "\U0010ffff"),
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.one_of(FRAGMENTS, st.text(max_size=3)), max_size=25).map("".join))


def encoder(kind: str) -> tuple[TextEncoder, Tokenizer]:
    if kind not in _ENCODERS:
        tokenizer = Tokenizer.from_file(str(EMBEDDED)) if kind == "smollm2" else (FAST | SLOW)[kind]()
        _ENCODERS[kind] = TextEncoder(tokenizer), tokenizer
    return _ENCODERS[kind]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "smollm2":
        request.getfixturevalue("installed_base")
    return str(request.param)


def assert_alike(kind: str, text: str) -> None:
    ours, theirs = encoder(kind)
    ids = theirs.encode(text, add_special_tokens=False).ids
    for time in ("first", "second", "third"):  # the second time it is kept, the third it comes from the cache
        assert list(unpack(ours.encode(text))) == ids, time


@given(text=TEXTS)
@example(text="a   b")
@example(text="  5")
@example(text="it's I'LL 'ſx")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_are_the_tokenizers(kind: str, text: str) -> None:
    assert_alike(kind, text)


@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "1", "'", "é", "中", "🙂", " \n", "ab ", "'s", "\u0301", "<|im_end|>"]
)
def test_very_long_runs(kind: str, unit: str) -> None:
    assert_alike(kind, unit * 20_000)


def test_every_character_of_unicode(kind: str) -> None:
    """Each alone, and in company of letters, digits and spaces: in blocks, as a text would have them."""
    characters = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cs", "Co")
    ]
    known = [c for c in characters if unicodedata.category(c) != "Cn"]
    letters = [c for c in known if not ("\u3400" <= c <= "\ud7a3" or c >= "\U00017000")]
    sample = letters[::7] + known[::101] + characters[::5001]
    for start in range(0, len(sample), 50):
        assert_alike(kind, "".join(f"a{c}b 1{c}2 {c} .{c}\n" for c in sample[start : start + 50]))


@pytest.mark.parametrize("kind", FAST)
def test_known_kinds_are_fast(kind: str) -> None:
    assert encoder(kind)[0].is_fast


@pytest.mark.usefixtures("installed_base")
def test_the_embedded_model_is_fast() -> None:
    assert encoder("smollm2")[0].is_fast


@pytest.mark.parametrize("kind", SLOW)
def test_other_kinds_are_read_by_their_tokenizer(kind: str) -> None:
    assert not encoder(kind)[0].is_fast


def test_words_that_a_file_refutes_are_given_up() -> None:
    ours = TextEncoder(FAST["gpt2"]())
    assert ours.is_fast
    ours._words = lambda text: bytes(4)  # an expression that only this text refutes cannot be made up
    assert ours.prove(["some text of the file"])
    assert not ours.is_fast
    assert ours.encode("some text of the file") == ours.encode_slowly("some text of the file")


def test_the_cache_of_pieces_is_bounded() -> None:
    ours, theirs = TextEncoder(FAST["gpt2"]()), FAST["gpt2"]()
    for number in range(3_000):
        ours.encode(f"{number} " * 300)
        ours.encode(f"{number} " * 300)
    assert sum(map(len, ours._pieces)) <= 4_100_000
    assert list(unpack(ours.encode("<|im_start|>a<|im_end|>"))) == theirs.encode("<|im_start|>a<|im_end|>").ids

"""Tokens of rows: ours beside Hugging Face's ``encode_batch``, on the same texts, ids compared in the same run.

Two data sets are generated: every text distinct, and a long system prompt that repeats. Words are drawn by Zipf's law,
real ones from the tokenizer's vocabulary and made-up ones, so that new words keep coming as often as they do in real
sets (20,000 different ones among 200,000, 30,000 among 400,000: counted in gsm8k, orca pairs, HateCheck and two more),
with capitals, digits, punctuation, line breaks and some other scripts. ``encode_batch`` is given the rendered texts
and every core; ours has one thread and cold caches in each repeat: once for the same texts, once for the whole way
from the file (reading, checking, rendering, tokenising, findings, digests, shared prefixes). Megabytes are of rendered
text. Interleaved, medians.

    .venv/bin/python bench/data_tokens.py
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import msgspec
from tokenizers import Tokenizer

from tunesmith.data.formats import ChatRow, decode_row
from tunesmith.data.token_table import TokenTable, tokenise_file
from tunesmith.data.tokens import RowTokenizer

BASE = Path(__file__).parents[1] / ".cache/tunesmith/models/base/smollm2-135m-instruct"
REPEATS = 5
NUM_WORDS = 200_000
ZIPF_EXPONENT = 1.25
OTHER_SCRIPTS = [
    "größer",
    "café",
    "naïve",
    "русский",
    "日本語",
    "中文字",
    "한국어",
    "🙂",
    "ελληνικά",
    "“quoted”",
    "—",
    "10€",
]
LIMIT_TOKENS = 8192
T = TypeVar("T")


class Words:
    """An endless supply of text."""

    def __init__(self, tokenizer: Tokenizer, seed: int):
        self._rng = random.Random(seed)
        real = sorted(
            word[1:]
            for word in tokenizer.get_vocab()
            if word.startswith("Ġ") and word[1:].isascii() and word[1:].isalpha()
        )
        self._rng.shuffle(real)
        letters = "etaoinshrdlucmfwypvbgkqjxz"
        made = ["".join(self._rng.choices(letters, k=self._rng.randint(3, 11))) for _ in range(NUM_WORDS - len(real))]
        self._words = real + made
        self._weights = list(accumulate((rank + 3) ** -ZIPF_EXPONENT for rank in range(len(self._words))))

    def text(self, num_words: int) -> str:
        words = self._rng.choices(self._words, cum_weights=self._weights, k=num_words)
        return " ".join(map(self._dress, words)).replace("\n ", "\n").strip() or "."

    def _dress(self, word: str) -> str:
        chance = self._rng.random()
        if chance < 0.10:
            return word + self._rng.choice([",", ".", ".\n", "?", "!", ":", ";", "'s"])
        if chance < 0.16:
            return word.capitalize()
        if chance < 0.20:
            return str(self._rng.randint(0, 10_000))
        return self._rng.choice(OTHER_SCRIPTS) if chance < 0.201 else word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    peer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    words = Words(peer, seed=1)
    system = words.text(300)
    print(f"{'':24}{'MB':>8}{'encode_batch':>14}{'encode':>10}{'ratio':>7}{'from file':>11}{'ratio':>7}  (MB/s)")
    with tempfile.TemporaryDirectory() as folder:
        measure("distinct text", Path(folder), peer, [chat(words.text(12), words, 45) for _ in range(rows)])
        measure("repeated system prompt", Path(folder), peer, [chat(system, words, 20) for _ in range(rows)])


def chat(system: str, words: Words, num_words: int) -> bytes:
    said = {"system": system, "user": words.text(num_words), "assistant": words.text(num_words)}
    return msgspec.json.encode({"messages": [{"role": role, "content": text} for role, text in said.items()]})


def measure(name: str, folder: Path, peer: Tokenizer, lines: list[bytes]) -> None:
    file = folder / "rows.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    template = RowTokenizer.from_dir(BASE).template
    chats: list[ChatRow] = [decode_row(line, 1) for line in lines]
    texts = [template.render(row.template_messages(), None, add_generation_prompt=False) for row in chats]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    seconds: dict[str, list[float]] = {"peer": [], "encode": [], "file": []}
    for _ in range(REPEATS):
        theirs = timed(seconds["peer"], partial(encode_batch, peer, texts))
        ours = timed(seconds["encode"], partial(encode_each, RowTokenizer.from_dir(BASE), texts))
        assert ours == theirs, "the ids differ"
        tokenizer = RowTokenizer.from_dir(BASE)
        table = timed(seconds["file"], partial(tokenise_file, file, tokenizer, limit=LIMIT_TOKENS))
        check_rows(table, tokenizer, chats, ours)
    peer_s, encode_s, file_s = (statistics.median(times) for times in seconds.values())
    speeds = f"{megabytes / peer_s:14.1f}{megabytes / encode_s:10.1f}{peer_s / encode_s:7.1f}"
    print(f"{name:24}{megabytes:8.1f}{speeds}{megabytes / file_s:11.1f}{peer_s / file_s:7.1f}", flush=True)


def encode_batch(peer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in peer.encode_batch(texts, add_special_tokens=False)]


def encode_each(tokenizer: RowTokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text) for text in texts]


def check_rows(table: TokenTable, tokenizer: RowTokenizer, chats: list[ChatRow], ids: list[list[int]]) -> None:
    """Every row's length, and the ids of each hundredth, are those of the rendered text without its last line break."""
    assert [int(length) + 1 for length in table.num_tokens] == list(map(len, ids)), "the rows' lengths differ"
    for number in range(0, len(chats), 100):
        (sequence,) = tokenizer.encode_row(chats[number], number)
        assert sequence.token_ids.tolist() == ids[number][:-1], "the ids of a row differ"


def timed(seconds: list[float], work: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - start)
    return result


if __name__ == "__main__":
    main()

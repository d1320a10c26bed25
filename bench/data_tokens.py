"""Tokens of rows: ours beside Hugging Face's ``encode_batch``, on the same texts, ids compared in the same run.

Two data sets are generated: every text distinct, and a long system prompt that repeats. Words are drawn by Zipf's law,
real ones from the tokenizer's vocabulary and made-up ones, so that new words keep coming as often as they do in real
sets (20,000 different ones among 200,000, 30,000 among 400,000: counted in gsm8k, orca pairs, HateCheck and two more),
with capitals, digits, punctuation, line breaks and some other scripts. ``encode_batch`` is given the rendered texts
and every core. Ours has cold caches in each repeat: once for the same texts in one thread (``encode``), once as users
have it, ``check(file, depth="tokens")``, on every core: reading, checking, rendering, tokenising, findings, digests,
shared prefixes. The last contender is OpenAI's cookbook with the same tokenizer, on a part of the file. Megabytes are
of rendered text. Interleaved, medians.

    .venv/bin/python bench/data_tokens.py
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from tokenizers import Tokenizer

from tunesmith.data import check
from tunesmith.data.digest import row_digest, set_digest
from tunesmith.data.formats import ChatRow, decode_row
from tunesmith.data.report import DatasetReport
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
COOKBOOK_PART = 6
"""Every so many rows: its rate does not depend on their number."""
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
    parser.add_argument("--rows", type=int, default=60_000)
    rows = parser.parse_args().rows
    peer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    words = Words(peer, seed=1)
    system = words.text(300)
    print(f"{'MB/s, and times that':24}{'MB':>8}{'encode_batch':>14}{'encode':>14}{'check':>14}{'cookbook':>10}{'':>8}")
    with tempfile.TemporaryDirectory() as folder:
        measure("distinct text", Path(folder), peer, [chat(words.text(12), words, 45) for _ in range(rows)])
        measure("repeated system prompt", Path(folder), peer, [chat(system, words, 20) for _ in range(rows)])


def chat(system: str, words: Words, num_words: int) -> bytes:
    said = {"system": system, "user": words.text(num_words), "assistant": words.text(num_words)}
    return msgspec.json.encode({"messages": [{"role": role, "content": text} for role, text in said.items()]})


def measure(name: str, folder: Path, peer: Tokenizer, lines: list[bytes]) -> None:
    file, part = folder / "rows.jsonl", folder / "part.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    part.write_bytes(b"".join(line + b"\n" for line in lines[::COOKBOOK_PART]))
    template = RowTokenizer.from_dir(BASE).template
    chats: list[ChatRow] = [decode_row(line, 1) for line in lines]
    texts = [template.render(row.template_messages(), None, add_generation_prompt=False) for row in chats]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    seconds: dict[str, list[float]] = {"peer": [], "encode": [], "check": [], "cookbook": []}
    for _ in range(REPEATS):
        theirs = timed(seconds["peer"], partial(encode_batch, peer, texts))
        ours = timed(seconds["encode"], partial(encode_each, RowTokenizer.from_dir(BASE), texts))
        assert ours == theirs, "the ids differ"
        tokenizer = RowTokenizer.from_dir(BASE)
        report = timed(seconds["check"], partial(check_file, file, tokenizer))
        require_same(report, tokenizer, chats, ours)
        timed(seconds["cookbook"], partial(count_as_the_cookbook, part, peer))
    peer_s, encode_s, check_s, cookbook_s = (statistics.median(times) for times in seconds.values())
    cookbook_s *= len(lines) / len(lines[::COOKBOOK_PART])
    columns = [f"{megabytes / peer_s:14.1f}"]
    columns += [f"{megabytes / taken:8.1f}{peer_s / taken:5.1f}x" for taken in (encode_s, check_s)]
    columns.append(f"{megabytes / cookbook_s:10.1f}{cookbook_s / check_s:7.1f}x")
    print(f"{name:24}{megabytes:8.1f}{''.join(columns)}", flush=True)


def check_file(file: Path, tokenizer: RowTokenizer) -> DatasetReport:
    return check(file, tokenizer=tokenizer, limit_tokens=LIMIT_TOKENS, depth="tokens")


def count_as_the_cookbook(file: Path, peer: Tokenizer) -> dict[str, Any]:
    """OpenAI's cookbook ("Data preparation and analysis for chat model fine-tuning"), from its description: all rows
    loaded, the formats of all messages looked at, then tokens counted message by message, the answers' once more."""
    with file.open(encoding="utf-8") as lines:
        dataset = [json.loads(line) for line in lines]
    errors: dict[str, int] = defaultdict(int)
    totals, answers = [], []
    for example in dataset:
        messages = example["messages"]
        for message in messages:
            errors["message_missing_key"] += "role" not in message or "content" not in message
            known = ("role", "content", "name", "function_call", "weight")
            errors["message_unrecognized_key"] += any(key not in known for key in message)
            errors["unrecognized_role"] += message.get("role") not in ("system", "user", "assistant", "function")
            errors["missing_content"] += not isinstance(message.get("content"), str)
        errors["example_missing_assistant_message"] += not any(m.get("role") == "assistant" for m in messages)
        tokens = 3
        for message in messages:
            tokens += 3
            for value in message.values():
                tokens += len(peer.encode(value, add_special_tokens=False).ids)
        totals.append(tokens)
        spoken = [message["content"] for message in messages if message["role"] == "assistant"]
        answers.append(sum(len(peer.encode(text, add_special_tokens=False).ids) for text in spoken))
    return {"tokens": sum(totals), "answers": sum(answers), "errors": dict(errors)}


def encode_batch(peer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in peer.encode_batch(texts, add_special_tokens=False)]


def encode_each(tokenizer: RowTokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text) for text in texts]


def require_same(report: DatasetReport, tokenizer: RowTokenizer, chats: list[ChatRow], ids: list[list[int]]) -> None:
    """The check's tokens are those of the rendered texts without their last line breaks, in number and by digest."""
    assert report.tokens is not None
    assert report.tokens.num_tokens == sum(len(row) - 1 for row in ids), "the numbers of tokens differ"
    digests = []
    for number, (row, expected) in enumerate(zip(chats, ids, strict=True)):
        sequences = tokenizer.encode_row(row, number)
        assert sequences[0].token_ids.tolist() == expected[:-1], "the ids of a row differ"
        digests.append(row_digest(sequences))
    assert report.tokens.digest == set_digest(digests), "the digests differ"


def timed(seconds: list[float], work: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - start)
    return result


if __name__ == "__main__":
    main()

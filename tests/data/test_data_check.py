"""Bad rows are named: line, path, what, how to mend."""

import tracemalloc
from pathlib import Path

import msgspec
import pytest

import tiny
from tunesmith.core.errors import DataError
from tunesmith.data.tokens import RowTokenizer
from tunesmith.data.training_file import check_training_file

GOOD = tiny.chat_lines(12)
SHARED = Path(__file__).parents[3] / "shared" / "data"


def check(folder: Path, tokenizer: RowTokenizer, content: bytes, **options: object):
    file = folder / "file.jsonl"
    file.write_bytes(content)
    return check_training_file(file, tokenizer=tokenizer, max_row_tokens=options.pop("max_row_tokens", 512), **options)


def joined(lines: list[bytes], end: bytes = b"\n") -> bytes:
    return end.join(lines)


@pytest.mark.parametrize(
    "content",
    [joined(GOOD), joined(GOOD) + b"\n", joined(GOOD, b"\r\n"), b"\xef\xbb\xbf" + joined(GOOD), joined(GOOD, b"\n\n")],
)
def test_good_files_in_every_dress(tmp_path: Path, tokenizer: RowTokenizer, content: bytes) -> None:
    facts = check(tmp_path, tokenizer, content)
    assert facts.num_rows == 12
    assert facts == check(tmp_path, tokenizer, joined(GOOD))
    assert 0 < facts.num_supervised_tokens < facts.num_tokens
    assert facts.longest_row_tokens <= facts.num_tokens


BAD = [
    (b"{", "Not valid JSON", None),
    (b"[1]", "not a JSON object but a list", "$"),
    (b'{"text": "a"}', '"messages" is missing (keys found: text)', "$"),
    (b'{"messages": {}}', '"messages" is an object, not a list', "$.messages"),
    (b'{"messages": []}', "messages is empty", "$.messages"),
    (b'{"messages": [1]}', "The message is a number", "$.messages[0]"),
    (b'{"messages": [{"role": "bot", "content": "x"}]}', 'The role is "bot"', "$.messages[0].role"),
    (b'{"messages": [{"role": "user", "content": 5}]}', "Expected a string", "$.messages[0].content"),
    (b'{"messages": [{"role": "user", "content": "x", "age": 5}]}', 'extra "age"', "$.messages[0].age"),
    (b'{"messages": [{"role": "user", "content": "x"}], "nums": 1}', 'Contains an extra "nums"', "$.nums"),
    (b'{"messages": [{"role": "user", "content": "x"}]}', "no assistant message", "$.messages"),
    (
        b'{"messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}]}',
        "The last message is from 'user'",
        "$.messages[1].role",
    ),
    (
        b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x", "weight": 0}]}',
        "weight 0",
        "$.messages",
    ),
    (
        b'{"messages": [{"role": "user", "content": "x", "weight": 1}, {"role": "assistant", "content": "x"}]}',
        "weight stands",
        "$.messages[0].weight",
    ),
    (b'{"messages": [{"role": "user"}, {"role": "assistant", "content": "x"}]}', "no content", "$.messages[0].content"),
    (
        b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]}',
        "is empty",
        "$.messages[1].content",
    ),
    (b'{"messages": [{"role": "user", "content": "\xff"}]}', "not UTF-8", None),
    (b"[" * 20_000, "Not valid JSON", None),
]


@pytest.mark.parametrize(("bad", "what", "path"), BAD, ids=[what for _, what, _ in BAD])
def test_a_bad_row_is_named(tmp_path: Path, tokenizer: RowTokenizer, bad: bytes, what: str, path: str | None) -> None:
    with pytest.raises(DataError) as caught:
        check(tmp_path, tokenizer, joined([*GOOD[:5], bad, *GOOD[5:]]))
    error = caught.value
    assert (error.line, error.json_path, error.code, error.param) == (6, path, "invalid_training_file", "training_file")
    assert what in str(error)


def test_all_bad_rows_are_counted(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    with pytest.raises(DataError, match=r"Line 2.*3 rows are wrong; also line 4, 6\.") as caught:
        check(tmp_path, tokenizer, joined([GOOD[0], b"{", GOOD[1], b"{", GOOD[2], b"{"]))
    assert caught.value.line == 2


def test_millions_of_bad_rows_take_no_memory(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    tracemalloc.start()
    with pytest.raises(DataError, match=r"200000 rows are wrong; also line 2, 3, 4, 5, 6 and more\."):
        check(tmp_path, tokenizer, b"{\n" * 200_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_a_row_that_cannot_fit_is_not_tokenised(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    row = msgspec.json.encode({"messages": [{"role": "user", "content": "x" * 100_000}]})
    with pytest.raises(DataError, match="more than 512 tokens can hold"):
        check(tmp_path, tokenizer, joined([*GOOD, row]))


def test_too_few_rows(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    with pytest.raises(
        DataError, match=r"Training file has 7 example\(s\), but must have at least 10 examples"
    ) as caught:
        check(tmp_path, tokenizer, joined(GOOD[:7]))
    assert caught.value.code == "invalid_n_examples"


def test_a_row_over_the_limit_is_refused_not_cut(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    long = msgspec.json.encode(
        {"messages": [{"role": "user", "content": "red " * 300}, {"role": "assistant", "content": "x"}]}
    )
    with pytest.raises(DataError, match="the most is 100") as caught:
        check(tmp_path, tokenizer, joined([*GOOD, long]), max_row_tokens=100)
    assert caught.value.line == 13


def test_gzip_is_refused_by_name(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    with pytest.raises(DataError, match="gzip") as caught:
        check(tmp_path, tokenizer, b"\x1f\x8b\x08", param="validation_file")
    assert caught.value.code == "invalid_validation_file"


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data sets are not beside this checkout")
@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("banking77/train.jsonl", 2000),
        ("foundry/gsm8k/chat_train.jsonl", 449),
        ("cookbook/drone_training.jsonl", 103),
    ],
)
def test_real_files_are_read_whole(tools_tokenizer: RowTokenizer, file: str, rows: int) -> None:
    assert check_training_file(SHARED / file, tokenizer=tools_tokenizer, max_row_tokens=100_000).num_rows == rows


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data sets are not beside this checkout")
def test_the_parser_torture_suite_never_crashes(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    for file in sorted((SHARED / "json_test_suite").glob("*.json")):
        content = file.read_bytes().replace(b"\n", b" ").replace(b"\r", b" ")
        if content.strip():
            with pytest.raises(DataError) as caught:
                check(tmp_path, tokenizer, joined([*GOOD, content]))
            assert caught.value.line == 13, file.name

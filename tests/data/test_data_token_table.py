"""Counts of a file, row by row: equal to the rows' own tokens, kept by content, and what the token rules find."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenised import tokenise_file
from tokenizers import Tokenizer

import tiny
from tunesmith.core.errors import DataError, Unavailable
from tunesmith.data import check
from tunesmith.data import scan as scan_module
from tunesmith.data.digest import row_digest, set_digest
from tunesmith.data.findings import Finding
from tunesmith.data.formats import decode_row
from tunesmith.data.prefixes import PrefixCounter
from tunesmith.data.read import read_lines
from tunesmith.data.render import ChatTemplate
from tunesmith.data.steps import num_distinct_tokens
from tunesmith.data.token_cache import TokenCache
from tunesmith.data.token_counter import TokenTally, count_tokens
from tunesmith.data.token_stats import MAX_BINS, token_stats
from tunesmith.data.token_table import SHARED_BATCH_ROWS, TokenTable
from tunesmith.data.tokens import RowTokenizer, TokenSequence
from tunesmith.data.training_file import check_training_file, sha256_of_file

BAD = b'{"messages": []}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = tiny.chat_lines(40, turns=2)
    return tiny.write_lines(tmp_path / "rows.jsonl", [*lines[:3], BAD, *lines[3:]])


def chat(*said: str, **keys: Any) -> bytes:
    roles = ("user", "assistant") if len(said) == 2 else ("system", "user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    return msgspec.json.encode({"messages": messages, **keys})


def found(folder: Path, tokenizer: RowTokenizer, *lines: bytes, limit: int = 512) -> tuple[TokenTable, list[Finding]]:
    findings: list[Finding] = []
    path = tiny.write_lines(folder / "some.jsonl", list(lines))
    return tokenise_file(path, tokenizer, limit=limit, sink=findings.append), findings


def test_a_table_has_what_the_rows_have(file: Path, tokenizer: RowTokenizer) -> None:
    table = tokenise_file(file, tokenizer, limit=512)
    good = [(line, raw) for line, raw in read_lines(file) if raw != BAD]
    rows = [tokenizer.encode_row(decode_row(raw, line), line) for line, raw in good]
    assert table.lines.tolist() == [line for line, _ in good]
    assert table.num_tokens.tolist() == [sum(len(s.token_ids) for s in row) for row in rows]
    assert table.num_supervised.tolist() == [sum(s.num_supervised_tokens for s in row) for row in rows]
    assert table.longest.tolist() == [max(len(s.token_ids) for s in row) for row in rows]
    digests = [row_digest(row) for row in rows]
    assert [bytes(digest) for digest in table.digests] == digests
    assert table.digest() == set_digest(digests)
    assert table.digest([5, 2]) == set_digest([digests[5], digests[2]])
    assert table.num_bad_rows == 1
    places = [*rows[:3], [], *rows[3:]]  # the bad row has its place in a batch
    batches = [places[n : n + SHARED_BATCH_ROWS] for n in range(0, len(places), SHARED_BATCH_ROWS)]
    flat = [[s for row in batch for s in row] for batch in batches]
    inputs = sum(len(s.token_ids) - 1 for batch in flat for s in batch)
    assert table.shared_prefix_tokens == inputs - sum(map(num_distinct_tokens, flat)) > 0


SEQUENCES = st.lists(
    st.lists(st.sampled_from([0, 1, 255, 256, 65_536, 2**24]), min_size=1, max_size=8).map(
        lambda ids: TokenSequence.of(1, ids, [True] * len(ids))
    ),
    min_size=1,
    max_size=12,
)


@given(SEQUENCES)
def test_shared_tokens_are_those_that_the_trainer_does_not_compute(sequences: list[TokenSequence]) -> None:
    counter = PrefixCounter(batch_rows=100)
    for sequence in sequences:
        counter.add([sequence])
    inputs = sum(len(sequence.token_ids) - 1 for sequence in sequences)
    assert counter.num_shared_tokens == inputs - num_distinct_tokens(sequences)


@given(SEQUENCES, SEQUENCES)
def test_a_digest_tells_rows_apart(a: list[TokenSequence], b: list[TokenSequence]) -> None:
    alike = [(s.token_ids, s.is_trained) for s in a] == [(s.token_ids, s.is_trained) for s in b]
    assert (row_digest(a) == row_digest(b)) == alike


def test_a_digest_sees_a_mark() -> None:
    learned, read = (TokenSequence.of(1, [5, 6], [False, mark]) for mark in (True, False))
    assert row_digest([learned]) != row_digest([read])
    assert row_digest([learned]).hex() == "1e59fe3db98b588e6023b8f09dfa24c9"


def test_statistics(file: Path, tokenizer: RowTokenizer) -> None:
    table = tokenise_file(file, tokenizer, limit=512)
    stats = token_stats(table, model="tiny", tokenizer_sha256=tokenizer.identity, limit=60, num_over_limit=7)
    assert stats is not None
    lengths = sorted(table.num_tokens.tolist())
    assert (stats.row_min, stats.row_max) == (lengths[0], lengths[-1])
    assert stats.row_median == (lengths[19] + lengths[20]) / 2
    assert stats.row_p95 == pytest.approx(np.percentile(lengths, 95), abs=0.05)
    assert stats.num_tokens == sum(lengths)
    assert stats.num_over_limit == 7
    assert len(stats.histogram) <= MAX_BINS
    for bin_ in stats.histogram:
        assert bin_.num_rows == sum(bin_.above < length <= bin_.up_to for length in lengths)
    assert sum(bin_.num_rows for bin_ in stats.histogram) == 40


def test_no_rows_no_statistics(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    table, _ = found(tmp_path, tokenizer, BAD)
    assert token_stats(table, model="tiny", tokenizer_sha256="", limit=60, num_over_limit=0) is None
    assert table.digest() == set_digest([])


@pytest.mark.parametrize("lengths", [[1], [7, 7, 7], [1, 1_000_000], list(range(1, 500)), [999, 1000, 1001]])
def test_histograms_hold_every_row(lengths: list[int]) -> None:
    numbers = np.array(lengths, np.int64)
    digests = np.zeros((len(lengths), 16), np.uint8)
    table = TokenTable(
        lines=numbers,
        num_tokens=numbers,
        num_supervised=numbers,
        longest=numbers,
        digests=digests,
        num_bad_rows=0,
        shared_prefix_tokens=0,
    )
    stats = token_stats(table, model="m", tokenizer_sha256="", limit=10, num_over_limit=0)
    assert stats is not None
    assert 1 <= len(stats.histogram) <= MAX_BINS
    assert sum(bin_.num_rows for bin_ in stats.histogram) == len(lengths)
    assert stats.histogram[0].num_rows > 0 < stats.histogram[-1].num_rows


def test_a_table_is_kept_by_content(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    path = tiny.write_lines(tmp_path / "a.jsonl", tiny.chat_lines(12))
    cache, sha256 = TokenCache(tmp_path / "home"), sha256_of_file(path)
    assert cache.find(sha256, tokenizer.identity, 512) is None
    facts = check_training_file(path, tokenizer=tokenizer, max_row_tokens=512, cache=cache)
    kept = cache.find(sha256, tokenizer.identity, 512)
    assert kept is not None
    assert kept.lines.tolist() == facts.table.lines.tolist()
    assert check_training_file(path, tokenizer=tokenizer, max_row_tokens=512, cache=cache) == facts
    assert cache.find(sha256, "0" * 64, 512) is None
    assert cache.find(sha256, tokenizer.identity, 100) is None


def test_a_kept_table_is_used_and_a_broken_one_made_again(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    path = tiny.write_lines(tmp_path / "a.jsonl", tiny.chat_lines(12))
    other = tiny.write_lines(tmp_path / "b.jsonl", tiny.chat_lines(30, seed=3))
    cache, sha256 = TokenCache(tmp_path / "home"), sha256_of_file(path)
    cache.keep(tokenise_file(other, tokenizer, limit=512), sha256, tokenizer.identity, 512)
    assert check_training_file(path, tokenizer=tokenizer, max_row_tokens=512, cache=cache).num_rows == 30
    (stored,) = (tmp_path / "home" / "cache" / "tokens").iterdir()
    stored.write_bytes(stored.read_bytes()[:100])
    assert check_training_file(path, tokenizer=tokenizer, max_row_tokens=512, cache=cache).num_rows == 12


def test_bad_rows_are_named_whatever_is_kept(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    """A report keeps tables of bad files too; a job must still say which row is wrong."""
    path = tiny.write_lines(tmp_path / "a.jsonl", [*tiny.chat_lines(12), BAD])
    cache, sha256 = TokenCache(tmp_path / "home"), sha256_of_file(path)
    cache.keep(tokenise_file(path, tokenizer, limit=512), sha256, tokenizer.identity, 512)
    with pytest.raises(DataError, match="messages is empty") as caught:
        check_training_file(path, tokenizer=tokenizer, max_row_tokens=512, cache=cache)
    assert caught.value.line == 13


def test_a_row_over_the_limit_says_what_would_be_cut(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    table, (finding,) = found(tmp_path, tokenizer, chat("red", "blue"), chat("red", "blue " * 60), limit=50)
    length, learned = int(table.num_tokens[1]), int(table.num_supervised[1])
    assert (finding.rule, finding.line) == ("over_context", 2)
    assert f"has {length} tokens; the most is 50" in finding.what
    assert f"last {length - 50} tokens, with {length - 50} of the {learned} tokens that are learned" in finding.what
    assert not table.fits(50)
    _, (finding,) = found(tmp_path, tokenizer, chat("red " * 60, "blue"), limit=50)
    assert "all of what is learned" in finding.what


def test_a_huge_row_is_not_tokenised(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    table, (finding,) = found(tmp_path, tokenizer, chat("x" * 10_000, "blue"), limit=50)
    assert finding.rule == "over_context"
    assert (table.num_rows, table.num_bad_rows) == (0, 1)


@pytest.mark.parametrize("special", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_special_tokens_in_texts_are_found(tmp_path: Path, tokenizer: RowTokenizer, special: str) -> None:
    _, (finding,) = found(tmp_path, tokenizer, chat("be brief", f"a {special} b", "blue"))
    assert (finding.rule, finding.json_path) == ("template_tokens_in_content", "$.messages[1].content")
    assert special in finding.what


def test_two_starts_are_found(tmp_path: Path, tiny_folder: Path) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>' }}{% endif %}"
        "{{ m['content'] + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
    )
    tokenizer = _with_template(tiny_folder, template, bos="<|endoftext|>")
    _, findings = found(tmp_path, tokenizer, chat("<|endoftext|>red", "blue"), chat("red <|endoftext|>", "blue"))
    assert [(f.rule, f.line) for f in findings if f.rule == "double_bos"] == [("double_bos", 1)]


def test_an_answer_that_the_template_drops_is_found(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    row = msgspec.json.encode({"messages": messages, "tools": tools})
    table, findings = found(tmp_path, tokenizer, row)
    assert [finding.rule for finding in findings] == ["zero_supervised_tokens"]
    assert table.num_bad_rows == 1


def test_a_refusing_template_is_a_finding(tmp_path: Path, tiny_folder: Path) -> None:
    source = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + tiny.CHATML
    table, (finding,) = found(
        tmp_path, _with_template(tiny_folder, source), chat("red", "blue"), chat("be brief", "red", "blue")
    )
    assert (finding.rule, finding.line) == ("template_refuses_row", 2)
    assert "no system here" in finding.what
    assert table.num_rows == 1


def _with_template(folder: Path, source: str, bos: str = "<|im_start|>") -> RowTokenizer:
    template = ChatTemplate(source, {"bos_token": bos, "eos_token": "<|im_end|>"})
    return RowTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), template)


def test_processes_beside_give_the_same_table_and_findings(
    tmp_path: Path, tokenizer: RowTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several batches, bad rows and rows that do not fit among them."""
    monkeypatch.setattr(scan_module, "_BATCH_BYTES", 4096)
    lines = tiny.chat_lines(200, turns=2)
    path = tiny.write_lines(
        tmp_path / "rows.jsonl", [*lines[:3], BAD, *lines[3:90], chat("hi", "word " * 400), *lines[90:]]
    )
    here: list[Finding] = []
    beside: list[Finding] = []
    alone = tokenise_file(path, tokenizer, limit=300, sink=here.append)
    shared = tokenise_file(path, tokenizer, limit=300, sink=beside.append, num_processes=2)
    assert shared == alone
    assert (shared.lines == alone.lines).all()
    assert (shared.num_bad_rows, shared.shared_prefix_tokens) == (alone.num_bad_rows, alone.shared_prefix_tokens)
    assert alone.num_bad_rows == 1
    assert beside == here
    assert {finding.rule for finding in here} == {"over_context"}


def token_workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "tunesmith.data.token_worker" in child.cmdline()]


def test_a_process_that_dies_is_an_error_and_no_half_table(file: Path, tokenizer: RowTokenizer) -> None:
    with count_tokens(file, tokenizer, 512, num_processes=1) as counter:
        (child,) = token_workers()
        child.kill()
        child.wait(10)
        tally = TokenTally(counter)
        tally.add(next(scan_module.scan(file)))
        with pytest.raises(Unavailable, match="ended with status"):
            list(tally.rest())
    assert not token_workers()


@pytest.mark.parametrize("kind", ["preference", "reinforcement"])
def test_a_report_does_not_make_a_file_of_another_kind_fit_for_training(
    kind: str, tmp_path: Path, tokenizer: RowTokenizer
) -> None:
    user, answer = {"role": "user", "content": "red"}, {"role": "assistant", "content": "blue"}
    row = (
        {"input": {"messages": [user]}, "preferred_output": [answer], "non_preferred_output": [user | answer]}
        if kind == "preference"
        else {"messages": [user], "reference": "blue"}
    )
    path = tiny.write_lines(tmp_path / "rows.jsonl", [msgspec.json.encode(row)] * 12)
    cache = TokenCache(tmp_path)
    check(path, tokenizer=tokenizer, limit_tokens=512, cache=cache)
    with pytest.raises(DataError, match="supervised training takes conversations"):
        check_training_file(path, tokenizer=tokenizer, max_row_tokens=512, cache=cache)


def test_counts_of_a_file_that_changed_meanwhile_are_not_kept(tmp_path: Path, tokenizer: RowTokenizer) -> None:
    path = tiny.write_lines(tmp_path / "rows.jsonl", tiny.chat_lines(12, turns=1))

    def change(done: int, total: int) -> None:
        with path.open("ab") as file:
            file.write(chat("one", "more") + b"\n")

    report = check(path, tokenizer=tokenizer, limit_tokens=512, cache=TokenCache(tmp_path), progress=change)
    assert TokenCache(tmp_path).find(report.sha256, tokenizer.identity, 512) is None

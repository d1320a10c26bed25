"""Whole files: every dress of a text file, kinds decided by the first rows, keys compared, memory flat."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from tunesmith.core.errors import DataError
from tunesmith.data import check, read
from tunesmith.data.findings import Finding
from tunesmith.data.read import MAX_LINE_BYTES, read_lines
from tunesmith.data.report import DatasetReport
from tunesmith.data.rows import Kind
from tunesmith.data.scan import Batch, detect_kind, scan

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared data sets are not beside this checkout")

GOOD = tiny.chat_lines(12)
USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
PAIR = {
    "input": {"messages": [USER]},
    "preferred_output": [ANSWER],
    "non_preferred_output": [USER | {"role": "assistant"}],
}
PROMPT = {"messages": [USER], "answer": 5}


def lines_of(*rows: object) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


@pytest.fixture
def scanned(tmp_path: Path) -> Callable[..., list[Batch]]:
    def scanned(content: bytes, kind: Kind | None = None) -> list[Batch]:
        file = tmp_path / "file.jsonl"
        file.write_bytes(content)
        return list(scan(file, kind=kind))

    return scanned


def findings_of(batches: list[Batch]) -> list[Finding]:
    return [finding for batch in batches for finding in batch.findings]


def ruled(batches: list[Batch]) -> list[tuple[str, int | None]]:
    return [(finding.rule, finding.line) for finding in findings_of(batches)]


@pytest.mark.parametrize(
    "content",
    [b"\n".join(GOOD), b"\n".join(GOOD) + b"\n", b"\r\n".join(GOOD) + b"\r\n", b"\xef\xbb\xbf" + b"\n".join(GOOD)],
    ids=["no last newline", "newline", "CRLF", "BOM"],
)
def test_a_good_file_in_every_dress(scanned: Callable[..., list[Batch]], content: bytes) -> None:
    (batch,) = scanned(content)
    assert (batch.first_line, batch.numbers, batch.raws) == (1, list(range(1, 13)), GOOD)
    assert None not in batch.rows
    assert not batch.findings


def test_blank_lines_are_hints_and_counted(scanned: Callable[..., list[Batch]]) -> None:
    batches = scanned(b"\n".join([GOOD[0], b"", b" \t\r", GOOD[1]]))
    assert ruled(batches) == [("blank_line", 2), ("blank_line", 3)]
    assert batches[0].numbers == [1, 4]


@pytest.mark.parametrize(
    ("content", "rule", "word"),
    [
        (b"\x1f\x8b\x08", "compressed_file", "gzip"),
        (b"PK\x03\x04", "compressed_file", "zip"),
        (b"PAR1", "compressed_file", "Parquet"),
        ('{"messages": []}'.encode("utf-16"), "not_utf8", "UTF-16"),
    ],
)
def test_what_is_no_text_is_refused_by_name(
    scanned: Callable[..., list[Batch]], tmp_path: Path, content: bytes, rule: str, word: str
) -> None:
    (finding,) = findings_of(scanned(content))
    assert finding.rule == rule
    assert word in finding.what
    assert detect_kind(tmp_path / "file.jsonl") is None
    with pytest.raises(DataError, match=word):
        list(read_lines(tmp_path / "file.jsonl"))


def test_an_empty_file_has_no_rows(scanned: Callable[..., list[Batch]], tmp_path: Path) -> None:
    assert scanned(b"") == []
    assert structure(tmp_path / "file.jsonl")[0].num_rows == 0


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": [USER, ANSWER]}, "chat"),
        ({"messages": [USER]}, "chat"),
        (PAIR, "preference"),
        ({"input": {}, "preferred_completion": []}, "preference"),
        (PROMPT, "reinforcement"),
        ({"prompt": "a", "completion": "b"}, "completion"),
        ({"question": "a", "answer": "b"}, None),
        ([1], None),
    ],
)
def test_the_first_rows_decide_the_kind(tmp_path: Path, row: object, kind: Kind | None) -> None:
    file = tiny.write_lines(tmp_path / "file.jsonl", [b"{", *lines_of(row, row)])
    assert detect_kind(file) == kind


def test_rows_of_another_kind_are_found(scanned: Callable[..., list[Batch]]) -> None:
    batches = scanned(b"\n".join([*GOOD[:3], *lines_of(PAIR, {"prompt": "a", "completion": "b"})]))
    assert [at for at in ruled(batches) if at[0] == "mixed_kinds"] == [("mixed_kinds", 4), ("mixed_kinds", 5)]
    assert [row is None for row in batches[0].rows] == [False] * 3 + [True] * 2


def test_a_key_in_some_rows_only_is_a_warning_that_keeps_the_row(scanned: Callable[..., list[Batch]]) -> None:
    odd = {"messages": [{"role": "system", "content": "s"}, USER, ANSWER], "tools": []}
    batches = scanned(b"\n".join([*lines_of(odd), *GOOD[:3], *lines_of(odd)]))
    assert ruled(batches) == [("inconsistent_keys", 1), ("inconsistent_keys", 5)]
    assert 'it has "tools"' in findings_of(batches)[0].what
    assert None not in batches[0].rows
    batches = scanned(b"\n".join(lines_of(PROMPT, PROMPT, {**PROMPT, "answer": None, "level": 1})))
    assert ruled(batches) == [("inconsistent_keys", 3)]
    assert 'it has "level" and it lacks "answer"' in findings_of(batches)[0].what


def test_old_and_new_names_of_pairs_may_mix(scanned: Callable[..., list[Batch]]) -> None:
    old = {
        "input": PAIR["input"],
        "preferred_completion": [ANSWER],
        "non_preferred_completion": [ANSWER | {"name": "n"}],
    }
    (batch,) = scanned(b"\n".join(lines_of(old, old, PAIR)))
    assert None not in batch.rows
    assert {rule for rule, _ in ruled([batch])} == {"missing_system_message"}


def test_batches_are_bounded_and_lose_nothing(tmp_path: Path) -> None:
    file = tiny.write_lines(tmp_path / "file.jsonl", GOOD * 2000 + [b"{"] * 20_000 + GOOD)
    faulty = tiny.write_lines(
        tmp_path / "faulty.jsonl", [b'{"messages": [' + b"1," * 150 + b"1]}"] * 1000 + [b""] * 20_000
    )
    told: list[tuple[int, int]] = []
    batches = list(scan(file, progress=lambda done, size: told.append((done, size))))
    assert [number for batch in batches for number in batch.numbers] == list(range(1, 44_013))
    assert max(sum(map(len, batch.raws)) for batch in batches) < 1.2e6
    assert max(len(batch.raws) for batch in batches) < 10_000
    assert max(len(batch.findings) for batch in scan(faulty)) < 10_100
    assert len(told) == len(batches)
    assert told == sorted(told)
    assert told[-1] == (file.stat().st_size, file.stat().st_size)


SIZE_RULES = ("too_few_examples", "few_examples")


def structure(file: Path) -> tuple[DatasetReport, list[Finding]]:
    found: list[Finding] = []
    return check(file, depth="structure", sink=found.append), found


def peak_of_check(file: Path) -> tuple[float, list[tuple[str, int | None]]]:
    tracemalloc.start()
    log = [finding for finding in structure(file)[1] if finding.rule not in SIZE_RULES]
    found = [(finding.rule, finding.line) for finding in log]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, found


def test_a_file_that_is_one_endless_line_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    with file.open("wb") as out:
        out.write(GOOD[0] + b"\n" + b'{"messages": ')
        out.seek(2**29)  # a hole: half a gigabyte of zeros without a newline
        out.write(b"\n" + GOOD[1])
    peak, found = peak_of_check(file)
    assert found == [("line_too_long", 2)]
    assert peak < 4 * MAX_LINE_BYTES
    with pytest.raises(DataError, match="Line 2: The line has more than 16 MiB"):
        list(read_lines(file))


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_longest_line_is_read(tmp_path: Path, end: bytes) -> None:
    row = GOOD[0].replace(b'"content":"', b'"content":"' + b"x" * (MAX_LINE_BYTES - len(GOOD[0])), 1)
    file = tmp_path / "file.jsonl"
    file.write_bytes(row + end)
    assert len(row) == MAX_LINE_BYTES
    assert structure(file)[0].num_bad_rows == 0
    file.write_bytes(row + b" " + b"x" + end)
    assert peak_of_check(file)[1] == [("line_too_long", 1)]


@pytest.mark.parametrize(
    "filling",
    [b"{},", b"[],", b"1.5,", b'"ab",', b'{"a":{},"a":1},', b"[", b'{"a":'],
    ids=lambda filling: filling.decode(),
)
def test_a_line_of_countless_values_takes_no_memory(tmp_path: Path, filling: bytes) -> None:
    file = tmp_path / "file.jsonl"
    tools = filling * (15 * 2**20 // len(filling))
    file.write_bytes(b'{"messages": [{"role": "user", "content": "a"}], "tools": [' + tools + b"{}]}\n" + GOOD[0])
    peak, found = peak_of_check(file)
    assert {line for _, line in found if line == 1}
    assert peak < 100e6


def test_a_rich_line_just_below_the_bound_takes_little(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    filling = b'{"abc":"' + b"x" * 100 + b'"},'
    file.write_bytes(b'{"messages": [{"role": "user", "content": "a"}], "x": NaN, "y": [' + filling * 40_000 + b"1]}")
    assert file.stat().st_size > read._RICH_BYTES
    peak, found = peak_of_check(file)
    assert ("nan_or_infinity", 1) in found
    assert peak < 60e6


@needs_shared
@pytest.mark.parametrize(
    ("name", "kind", "num_rows", "expected"),
    [
        ("banking77/train.jsonl", "chat", 2000, {}),
        ("banking77/test.jsonl", "chat", 500, {}),
        ("cookbook/drone_training.jsonl", "chat", 103, {}),
        ("cookbook/toy_chat_fine_tuning.jsonl", "chat", 5, {"missing_user_message": 1, "missing_system_message": 1}),
        ("foundry/gsm8k/chat_train.jsonl", "chat", 449, {}),
        ("foundry/orca_dpo_pairs/validation.jsonl", "preference", 284, {"kind_not_trainable": 1}),
        ("foundry/rft_countdown/countdown_train_100.jsonl", "reinforcement", 100, {"kind_not_trainable": 1}),
        ("foundry/stock_toolcall/stock_toolcall_training.jsonl", "chat", 86, {}),
        ("foundry/sarcasm/qa.jsonl", None, 500, {"missing_messages_list": 500}),
        ("hatecheck/cases.jsonl", None, 1864, {"missing_messages_list": 1864}),
        ("moderation/samples.jsonl", None, 840, {"missing_messages_list": 840}),
    ],
)
def test_real_files(name: str, kind: Kind | None, num_rows: int, expected: dict[str, int]) -> None:
    report, _ = structure(SHARED / name)
    assert (report.kind, report.num_rows) == (kind, num_rows)
    assert {group.rule: group.count for group in report.groups if group.rule not in SIZE_RULES} == expected


@needs_shared
def test_real_rows_of_other_systems_are_told_what_to_write() -> None:
    report, _ = structure(SHARED / "foundry/sarcasm/qa.jsonl")
    what = report.groups[0].samples[0].what
    assert "keys found: answer, question" in what
    assert '{"role": "user", "content": <question>}, {"role": "assistant", "content": <answer>}' in what

"""The JSON parser torture suite, each file as a line of a data set.

A line of a data set has no newline, so each case comes twice: with its newlines made spaces, which mean the same
between JSON's tokens; and as it is, where every piece between newlines is a line of its own.
"""

import json
import tracemalloc
from pathlib import Path

import pytest

from tunesmith.data.findings import Finding
from tunesmith.data.formats import read_row
from tunesmith.data.rows import ReinforcementRow, Row
from tunesmith.data.rules import RULES
from tunesmith.data.scan import scan

SUITE = Path(__file__).parents[3] / "shared" / "data" / "json_test_suite"
pytestmark = pytest.mark.skipif(not SUITE.exists(), reason="the shared data sets are not beside this checkout")

GOOD = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
BLANK_CASES = {"n_single_space", "n_structure_no_data"}
DUPLICATES = {"y_object_duplicated_key", "y_object_duplicated_key_and_value"}
BROKEN = {"invalid_json", "not_utf8", "nan_or_infinity", "huge_number", "lone_surrogate", "deep_nesting"}
READING = BROKEN | {"duplicate_key"}
# A newline within a string, which a space mends.
MENDED_BY_SPACES = {"n_string_unescaped_newline"}


def cases(kind: str) -> list[Path]:
    return sorted(SUITE.glob(f"{kind}_*.json"))


def one_line(case: Path) -> bytes:
    return case.read_bytes().replace(b"\r", b" ").replace(b"\n", b" ")


def scanned(tmp_path: Path, content: bytes) -> tuple[dict[int, Row | None], list[Finding]]:
    file = tmp_path / "file.jsonl"
    file.write_bytes(content)
    batches = list(scan(file))
    rows = {number: row for batch in batches for number, row in zip(batch.numbers, batch.rows, strict=True)}
    return rows, [finding for batch in batches for finding in batch.findings]


def errors_at(findings: list[Finding], line: int) -> set[str]:
    return {f.rule for f in findings if f.line == line and RULES[f.rule].severity == "error"}


def is_good_around(rows: dict[int, Row | None], last: int) -> bool:
    """Whether the rows before and after the case were read as if it were not there."""
    return all(rows[line] is not None for line in (1, 2, last))


@pytest.mark.parametrize("case", cases("n"), ids=lambda case: case.stem)
def test_what_is_not_json_is_a_finding_with_its_line(tmp_path: Path, case: Path) -> None:
    rows, findings = scanned(tmp_path, b"\n".join([GOOD, GOOD, one_line(case), GOOD]))
    assert is_good_around(rows, 4)
    if case.stem in BLANK_CASES:
        assert [(f.rule, f.line) for f in findings if f.rule == "blank_line"] == [("blank_line", 3)]
    elif case.stem in MENDED_BY_SPACES:
        assert errors_at(findings, 3) == {"data_type"}
    else:
        assert rows[3] is None
        assert errors_at(findings, 3) & BROKEN


@pytest.mark.parametrize("case", cases("y"), ids=lambda case: case.stem)
def test_what_is_json_is_no_json_error(tmp_path: Path, case: Path) -> None:
    rows, findings = scanned(tmp_path, b"\n".join([GOOD, GOOD, one_line(case), GOOD]))
    assert is_good_around(rows, 4)
    reading = errors_at(findings, 3) & READING
    assert reading == ({"duplicate_key"} if case.stem in DUPLICATES else set())
    expected = {"missing_messages_list"} if isinstance(json.loads(one_line(case)), dict) else {"data_type"}
    assert errors_at(findings, 3) - READING == expected


def within_a_row(case: Path) -> bytes:
    """The case as one value of a row for reinforcement, whose extra keys may hold anything."""
    return b'{"messages": [{"role": "user", "content": "a"}], "extra": ' + one_line(case) + b"}"


@pytest.mark.parametrize("case", cases("y"), ids=lambda case: case.stem)
def test_json_within_a_row_is_parsed_to_the_value_that_python_reads(case: Path) -> None:
    row, findings = read_row(within_a_row(case), 1, "reinforcement")
    if case.stem in DUPLICATES:
        assert [(f.rule, f.json_path) for f in findings] == [("duplicate_key", "$.extra.a")]
    else:
        assert isinstance(row, ReinforcementRow)
        assert row.extras == {"extra": json.loads(case.read_bytes())}
        assert not findings


@pytest.mark.parametrize("case", [c for c in cases("n") if c.stem not in MENDED_BY_SPACES], ids=lambda case: case.stem)
def test_broken_json_within_a_row_is_a_finding(case: Path) -> None:
    row, findings = read_row(within_a_row(case), 7, "reinforcement")
    assert row is None
    assert errors_at(findings, 7) & BROKEN


@pytest.mark.parametrize("case", cases("i"), ids=lambda case: case.stem)
def test_what_parsers_may_decide_is_decided_without_a_crash(tmp_path: Path, case: Path) -> None:
    rows, findings = scanned(tmp_path, b"\n".join([GOOD, GOOD, one_line(case), GOOD]))
    assert is_good_around(rows, 4)
    assert errors_at(findings, 3)
    row, findings = read_row(within_a_row(case), 3, "reinforcement")
    assert (row is None) == bool(errors_at(findings, 3))


@pytest.mark.parametrize("case", [*cases("n"), *cases("y"), *cases("i")], ids=lambda case: case.stem)
def test_cases_with_their_newlines_trouble_no_other_line(tmp_path: Path, case: Path) -> None:
    content = case.read_bytes()
    rows, findings = scanned(tmp_path, b"\n".join([GOOD, GOOD, content, GOOD]))
    last = 4 + content.count(b"\n")
    assert is_good_around(rows, last)
    assert {f.line for f in findings if RULES[f.rule].severity == "error"} <= set(range(3, last))
    pieces = content.split(b"\n")
    assert all(rows[line] is None for line, piece in enumerate(pieces, start=3) if piece.strip(b" \t\r"))


def test_the_whole_suite_many_times_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    lines = [one_line(case) for case in (*cases("n"), *cases("y"), *cases("i"))]
    file.write_bytes(b"\n".join([GOOD, *lines]) * 300)
    tracemalloc.start()
    num_bad = sum(batch.rows.count(None) for batch in scan(file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_bad > 300 * 300
    assert peak < 40e6

"""The index finds what reading from the beginning finds."""

from pathlib import Path

import pytest

from tunesmith.data.line_index import STRIDE_LINES, LineIndex
from tunesmith.data.read import read_lines


def write(path: Path, num_lines: int, *, end: bytes = b"\n", last: bytes = b"") -> Path:
    lines = [b"" if n % 7 == 3 else b'{"n": %d, "x": "%s"}' % (n, b"y" * (n * 37 % 5000)) for n in range(1, num_lines)]
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(line + end for line in lines) + last)
    return path


@pytest.mark.parametrize("num_lines", [1, 2, STRIDE_LINES, STRIDE_LINES + 1, 3 * STRIDE_LINES, 3 * STRIDE_LINES + 5])
@pytest.mark.parametrize("last", [b"", b'{"last": 1}'])
def test_every_row_is_where_reading_finds_it(tmp_path: Path, num_lines: int, last: bytes) -> None:
    path = write(tmp_path / "rows.jsonl", num_lines, end=b"\r\n" if num_lines % 2 else b"\n", last=last)
    expected = list(read_lines(path))
    index = LineIndex.of(path, tmp_path / "kept" / "index.npy")
    for after in {0, 1, STRIDE_LINES - 1, STRIDE_LINES, 2 * STRIDE_LINES, num_lines - 1, num_lines, num_lines + 10**6}:
        assert list(index.rows(path, after)) == [(line, raw) for line, raw in expected if line > after]
    kept = LineIndex.of(path, tmp_path / "kept" / "index.npy")
    for line, raw in expected[:: max(1, len(expected) // 20)]:
        assert kept.row(path, line) == raw
    assert kept.row(path, num_lines + 5) is None
    assert num_lines <= 3 or kept.row(path, 3) is None


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"")
    assert list(LineIndex.of(path).rows(path, 0)) == []

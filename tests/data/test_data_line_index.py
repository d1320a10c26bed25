"""The index finds what reading from the beginning finds."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunesmith.data import line_index
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


def test_chosen_rows_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.jsonl", 3 * STRIDE_LINES)
    rows, index = dict(read_lines(path)), LineIndex.of(path)
    chosen = [1, 2, 3, 500, 998, 1000, 1001, 2500, 2999]
    num_read = 0
    real = line_index.each_line

    def counted(file):  # type: ignore[no-untyped-def]
        nonlocal num_read
        for line in real(file):
            num_read += 1
            yield line

    monkeypatch.setattr(line_index, "each_line", counted)
    assert list(index.rows_at(path, chosen)) == [(line, rows.get(line, b"")) for line in chosen]
    assert num_read <= 1000 + 500 + 999
    assert list(index.rows_at(path, [10**9])) == []


def test_several_may_keep_the_same_index_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.jsonl", 20)
    both_have_written = threading.Barrier(2, timeout=30)
    save = line_index.np.save
    monkeypatch.setattr(line_index.np, "save", lambda *args: (save(*args), both_have_written.wait()))
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: LineIndex.of(path, tmp_path / "kept" / "lines.npy"), range(2)))
    assert [list(index.rows(path, 0)) for index in made] == [list(read_lines(path))] * 2
    assert [kept.name for kept in (tmp_path / "kept").iterdir()] == ["lines.npy"]

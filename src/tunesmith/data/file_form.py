"""What a file is, by its first bytes: the forms that are no JSON lines are named, once for the whole file."""

import re

from tunesmith.core.errors import DataError

HEAD_BYTES = 2**16
"""Looked at."""
_FORMATS = {
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip file (or a spreadsheet)",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3\x00": "a database",
    b"%PDF": "a PDF",
}
_UTF_32 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff", b"{\0\0\0", b"\0\0\0{")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_NOT_IN_TEXT = bytes({*range(32), 127} - {*b"\b\t\n\f\r\x1b"})
_ODD_SHARE = 0.02
"""Random bytes have ten in a hundred that no text has; a text with a damaged place has fewer."""
_NUL_SHARE = 0.3
_CELL = re.compile(r'"?\w[\w .-]{0,60}"?')
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_CR_ENDS = re.compile(rb"}[ \t]*\r[ \t\r]*{")
_BEGINS_AS_ROW = re.compile(rb'(\xef\xbb\xbf)?\s*{\s*"')
"""Whatever follows, which may be damaged, is looked at line by line."""
_PRETTY = re.compile(rb'(\xef\xbb\xbf)?\s*(\[[ \t\r]*\n|{[ \t\r]*\n\s*")')
_EXAMPLE = 'Write one JSON object per line, like {"messages": [...]}.'


def require_lines(head: bytes) -> None:
    """Raises DataError for what is not UTF-8 text in lines, by the name of what it is."""
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            raise _refusal(f"The file is {name}.", "compressed_file", "Upload it uncompressed.")
    encoding = _wide_encoding(head)
    if encoding is not None:
        raise _refusal(f"The file is {encoding}.", "not_utf8", "Save the file as UTF-8.")
    if not _BEGINS_AS_ROW.match(head) and _is_binary(head):
        raise _refusal(
            "The file is not a text file: it holds bytes that no text has.", "compressed_file", "Give a text file."
        )
    if b"\n" not in head and _CR_ENDS.search(head):
        raise _refusal(
            "The lines end in CR (\\r) alone, as on old Macs: to most programs this is one line.",
            "not_json_lines",
            "Save the file with line ends of today: LF, or CR LF.",
        )
    if _PRETTY.match(head):
        raise _refusal("The file is one JSON document over many lines.", "not_json_lines", _EXAMPLE)
    _require_no_table(head)


def _refusal(what: str, code: str, mend: str) -> DataError:
    return DataError(what, line=1, code=code, mend=mend)


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, with its mark or without: then every other byte of plain text is NUL, the first or second."""
    if head.startswith(_UTF_32):
        return "UTF-32"
    if head.startswith(_UTF_16):
        return "UTF-16"
    first = head[:1000]
    evens, odds = first[::2].count(0), first[1::2].count(0)
    half = len(first) // 2
    is_wide = (
        half >= 2 and 0 in first[:2] and min(evens, odds) <= _ODD_SHARE * half and max(evens, odds) >= _NUL_SHARE * half
    )
    return "UTF-16" if is_wide else None


def _is_binary(head: bytes) -> bool:
    num_odd = len(head) - len(head.translate(None, _NOT_IN_TEXT))
    if num_odd <= _ODD_SHARE * len(head):
        return False
    return num_odd >= _NUL_SHARE * len(head) or not _is_utf8(head)


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as bad:
        return bad.start >= len(head) - 3  # the head's end may cut a character
    return True


def _require_no_table(head: bytes) -> None:
    """A heading of two or more names, and a second line that has as many cells and is no JSON."""
    heading, _, rest = head.decode("utf-8", "replace").removeprefix("\ufeff").partition("\n")
    second = rest.partition("\n")[0]
    for separator, name in _SEPARATORS.items():
        cells = heading.strip().split(separator)
        if len(cells) < 2 or second[:1] in ("{", "[") or second.count(separator) < len(cells) - 1:
            continue
        if all(_CELL.fullmatch(cell.strip()) for cell in cells):
            columns = ", ".join(cell.strip().strip('"') for cell in cells[:8])
            what = f"The file is a table with {name} between its columns ({columns})."
            raise _refusal(what, "not_json_lines", _EXAMPLE)

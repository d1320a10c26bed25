"""How results look: tables for people, the server's JSON for programs, nothing coloured where nobody sees colours."""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import Parameter

from tunesmith.cli.objects import Answer

T = TypeVar("T")

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON, for programs.")]


def answer(reply: Answer[T], as_json: bool, render: Callable[[T], None]) -> None:
    """Print the server's JSON, or what ``render`` prints for people."""
    if as_json:
        json_bytes(reply.document)
    else:
        render(reply.value)


def json_bytes(document: bytes) -> None:
    sys.stdout.write(msgspec.json.format(document, indent=2).decode() + "\n")
    sys.stdout.flush()


def json_object(value: object) -> None:
    json_bytes(msgspec.json.encode(value))


def line(text: str) -> None:
    """One plain line on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A remark to the person, on standard error: it does not disturb a pipe."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; tab-separated lines with a heading when piped."""
    if sys.stdout.isatty():
        _rich_table(headings, rows)
        return
    for cells in (headings, *rows):
        line("\t".join(cells))


def fields(pairs: Sequence[tuple[str, str | None]]) -> None:
    """The fields of one object, one a line; absent ones are left out."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        if value is not None:
            line(f"{name:<{width}}  {value}")


def _rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn: Any = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for cells in rows:
        drawn.add_row(*(Text(cell, overflow="fold") for cell in cells))
    Console().print(drawn)


def moment(unix_s: int | None) -> str | None:
    """Local date and time, for instance ``2026-11-23 14:05:31``."""
    if unix_s is None:
        return None
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(num_bytes: int) -> str:
    """For instance ``812 B``, ``1.4 MB``: powers of 1,000."""
    amount = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """For instance ``42s``, ``3m05s``, ``2h04m``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def count(amount: int, word: str) -> str:
    """For instance ``1 row``, ``1,200 rows``."""
    return f"{amount:,} {word}" if amount == 1 else f"{amount:,} {word}s"


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"

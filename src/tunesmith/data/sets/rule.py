"""What every whole-set rule is: it sees each row once, in order, and speaks at the end."""

from collections.abc import Iterator
from typing import Protocol

from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.report import Skipped

MANY_ROWS = 30
"""With fewer, a share says nothing."""


class SetRule(Protocol):
    """Memory may grow by some bytes a row, never by its text."""

    def add(self, row: RowView) -> None: ...

    def findings(self) -> Iterator[Finding]:
        """Once, after the last row."""
        ...

    def skipped(self) -> Iterator[Skipped]:
        """What was not looked at, or only in a sample; asked after ``findings``."""
        ...


def share(part: int, whole: int) -> str:
    """``14 of 86 (16 %)``"""
    return f"{part:,} of {whole:,} ({100 * part / whole:.0f} %)"

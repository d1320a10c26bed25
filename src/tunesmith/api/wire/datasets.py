"""Data files as Tunesmith's own API shows them: with what they were made from, and how."""

from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import Field

from tunesmith.api.wire.files import File
from tunesmith.api.wire.shape import ResponseBody, WholeBody
from tunesmith.data.findings import Finding
from tunesmith.data.mend import MendSummary
from tunesmith.data.rule import FixName
from tunesmith.data.split_file import SplitSummary
from tunesmith.store.tables import FileRow

MAX_LINES = 1_000_000


class DatasetFile(File):
    """OpenAI's File, and what is beside it."""

    sha256: str
    parent_id: str | None
    """The file that this one was made from; it may have been deleted since."""
    lineage: dict[str, Any] | None
    """How it was made: ``action`` is mend, split or generate."""
    children: list[str]
    """Files that were made from this one, oldest first."""

    @classmethod
    def with_children(cls, row: FileRow, children: list[str]) -> Self:
        shown = File.of(row).model_dump()
        return cls(**shown, sha256=row.sha256, parent_id=row.parent_id, lineage=row.lineage, children=children)


class CheckStatus(ResponseBody):
    """A check that has not ended; ask again."""

    object: Literal["dataset.check"] = "dataset.check"
    status: Literal["queued", "running"]
    progress: float
    """From 0 to 1."""
    eta_s: float | None
    """Seconds left; null until it can be told."""


class MendBody(WholeBody):
    """``drop_rows`` drops the rows at ``lines`` and those in which ``rules`` found something; without both, the rows
    that have an error. The other fixes ask for nothing more."""

    fixes: Annotated[list[FixName], Field(min_length=1, max_length=5)]
    lines: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=MAX_LINES)] | None = None
    rules: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    model: str | None = None
    """Whose limits make a row an error; by default the model that a check takes."""


class SplitBody(WholeBody):
    """How much is held out: a share of the rows (default 0.2) or a count."""

    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class RowShown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a page."""

    line: int
    num_bytes: int
    row: msgspec.Raw | None = None
    """The row as JSON; absent when it is none."""
    raw: str | None = None
    """The beginning of a row that is not JSON."""
    findings: list[Finding] | None = None
    """Absent when the file was not checked."""


class RowPage(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[RowShown]
    has_more: bool
    """There are more rows after the last one shown."""
    is_checked: bool
    """Whether there is a report, so that rows come with their findings."""


class MendResult(msgspec.Struct, frozen=True, kw_only=True):
    file: dict[str, Any]
    """The new file, as GET /api/files/{id} shows it."""
    summary: MendSummary


class SplitResult(msgspec.Struct, frozen=True, kw_only=True):
    train: dict[str, Any]
    """The new file to train on, as GET /api/files/{id} shows it."""
    valid: dict[str, Any]
    summary: SplitSummary

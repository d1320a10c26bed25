"""Data files as Tunesmith's own API shows them: with what they were made from, and how."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import Field, WithJsonSchema

from tunesmith.api.wire.files import File
from tunesmith.api.wire.schema import json_schema, ref_to
from tunesmith.api.wire.shape import ResponseBody, WholeBody
from tunesmith.data.findings import Finding, Verdict
from tunesmith.data.mend import MendSummary
from tunesmith.data.rows import Kind
from tunesmith.data.rule import FixName
from tunesmith.data.split_file import SplitSummary
from tunesmith.data.tokens import Completions
from tunesmith.store.tables import FileRow

MAX_LINES = 1_000_000


class MendLineage(msgspec.Struct, frozen=True, kw_only=True, tag_field="action", tag="mend"):
    """What was chosen and what changed, in numbers: no text of the data."""

    fixes: list[FixName]
    num_lines: int | None
    rules: list[str] | None
    model: str | None
    completions: Completions | None = None
    validation: str | None = None
    num_rows_before: int
    num_rows_after: int
    num_changed: int
    num_dropped: int


class SplitLineage(msgspec.Struct, frozen=True, kw_only=True, tag_field="action", tag="split"):
    share: float | None
    count: int | None
    seed: int
    side: Literal["train", "valid"]
    num_rows: int
    other_side: str
    """The file with the other rows."""


class GeneratePlan(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    topics: list[str]
    tones: list[str]
    lengths: list[str]
    system: str | None


class GenerateLineage(msgspec.Struct, frozen=True, kw_only=True, tag_field="action", tag="generate"):
    """Never a key, never a dropped text."""

    generation: str
    teacher_model: str
    teacher_url: str | None
    seed: int
    seeds: list[str]
    documents: list[str]
    plan: GeneratePlan
    num_rows: int
    stopped_by: str
    dropped: dict[str, int]
    total_tokens: int
    cost: float | str


Lineage = MendLineage | SplitLineage | GenerateLineage
ShownLineage = Annotated[dict[str, Any] | None, WithJsonSchema(json_schema(Lineage | None))]
"""As it was stored, whatever version of the program stored it."""


class OwnFile(File):
    """OpenAI's File, with where it comes from."""

    sha256: str
    parent_id: str | None
    """The file that this one was made from; it may have been deleted since."""
    lineage: ShownLineage
    """How it was made: ``action`` is mend, split or generate."""


class DatasetFile(OwnFile):
    """With what was made of it."""

    children: list[str]
    """Files that were made from this one, oldest first."""

    @classmethod
    def with_children(cls, row: FileRow, children: list[str]) -> Self:
        shown = File.of(row).model_dump()
        return cls(**shown, sha256=row.sha256, parent_id=row.parent_id, lineage=row.lineage, children=children)


@dataclass(frozen=True)
class ReportFacts:
    """A report in a few numbers."""

    kind: Kind | None
    verdict: Verdict
    num_rows: int
    num_bad_rows: int
    num_errors: int
    num_warnings: int
    num_hints: int


class ListedDataset(OwnFile):
    report: ReportFacts | None
    """Null while the file was not checked for this model."""

    @classmethod
    def of_row(cls, row: FileRow, report: ReportFacts | None) -> Self:
        shown = File.of(row).model_dump()
        return cls(**shown, sha256=row.sha256, parent_id=row.parent_id, lineage=row.lineage, report=report)


class DatasetList(ResponseBody):
    """A page of data sets, newest first."""

    object: Literal["list"] = "list"
    data: list[ListedDataset]
    has_more: bool


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
    completions: Completions | None = None
    """As in a check: how the model reads prompts with their completions."""
    validation: str | None = None
    """As in a check: with it ``rules`` may name those that compare both files."""


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
    """The row as JSON; absent when it is none, or holds a number that no computer does."""
    raw: str | None = None
    """The beginning of a row that is not shown as JSON."""
    findings: list[Finding] | None = None
    """Absent when the file was not checked."""


class RowPage(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[RowShown]
    has_more: bool
    """There are more rows after the last one shown."""
    is_checked: bool
    """Whether there is a report, so that rows come with their findings."""


FileDocument = Annotated[dict[str, Any], ref_to(DatasetFile)]


class MendResult(msgspec.Struct, frozen=True, kw_only=True):
    file: FileDocument
    """The new file, as GET /api/files/{id} shows it."""
    summary: MendSummary


class SplitResult(msgspec.Struct, frozen=True, kw_only=True):
    train: FileDocument
    """The new file to train on, as GET /api/files/{id} shows it."""
    valid: FileDocument
    summary: SplitSummary

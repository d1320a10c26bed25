"""/api/files: data files listed, checked and read."""

import json
import math
import re
from collections.abc import Iterable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from tunesmith.api.deps import Services, ServicesDep
from tunesmith.api.extra.checks import (
    STILL_RUNNING,
    Check,
    CheckQueryDep,
    CompletionsName,
    ModelName,
    json_document,
    require_rule,
    shown,
    still_running,
)
from tunesmith.api.extra.kept_findings import KeptFindings
from tunesmith.api.extra.previews import Previewer
from tunesmith.api.extra.reports import Running
from tunesmith.api.wire.datasets import DatasetFile, DatasetList, ListedDataset, RowPage, RowShown
from tunesmith.api.wire.schema import json_response
from tunesmith.core.errors import NotFound, Unavailable
from tunesmith.data.findings import Finding
from tunesmith.data.line_index import LineIndex
from tunesmith.data.preview import Preview
from tunesmith.data.read import Line
from tunesmith.data.report import DatasetReport
from tunesmith.store.tables import FileRow

router = APIRouter(prefix="/api/files", tags=["data"])

MAX_PAGE_BYTES = 4 * 2**20
MAX_RAW_CHARS = 10_000
_HUGE_INTEGER = re.compile(rb"[0-9]{309}")
NDJSON = "application/x-ndjson"


@router.get("")
def list_datasets(
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    model: ModelName = None,
    completions: CompletionsName = None,
) -> DatasetList:
    """Files to train on, newest first, with what their reports for this model say; starts no check."""
    files, has_more = services.data_files.list_page(after, limit)
    chosen = services.data_files.model(model, completions)
    facts = services.reports.facts_of_each((row.sha256 for row in files), chosen)
    return DatasetList(data=[ListedDataset.of_row(row, facts.get(row.sha256)) for row in files], has_more=has_more)


@router.get("/{file_id}")
def retrieve(file_id: str, services: ServicesDep) -> DatasetFile:
    """A file with what it was made from, and what was made from it."""
    return shown(services, services.data_files.find(file_id))


@router.get(
    "/{file_id}/report",
    response_class=Response,
    responses=STILL_RUNNING | {200: json_response(DatasetReport, "Everything that is known of the data set.")},
)
def report(file_id: str, services: ServicesDep, query: CheckQueryDep, refresh: bool = False) -> Response:
    """Check a file, once: 202 with the progress until the report is there. ``refresh`` checks it again."""
    check = Check(services, services.data_files.find_data(file_id), query)
    found = check.find_or_start(refresh=refresh)
    return still_running(found) if isinstance(found, Running) else json_document(found.document(check.row.filename))


@router.get(
    "/{file_id}/findings",
    response_class=Response,
    responses=STILL_RUNNING | {200: json_response(Finding, "Every finding, one JSON object a line.", NDJSON)},
)
def findings(file_id: str, services: ServicesDep, query: CheckQueryDep) -> Response:
    """Every finding of the report, not only its samples."""
    found = Check(services, services.data_files.find_data(file_id), query).find_or_start()
    if isinstance(found, Running):
        return still_running(found)
    return StreamingResponse(found.findings.stream(), media_type=NDJSON)


@router.get(
    "/{file_id}/preview",
    response_class=Response,
    responses={200: json_response(Preview, "The row as it is trained: the same tokens, the same digest.")},
)
def preview(
    file_id: str,
    services: ServicesDep,
    line: Annotated[int, Query(ge=1)] = 1,
    model: ModelName = None,
    completions: CompletionsName = None,
) -> Response:
    """What the model sees of one row, and what it learns of it."""
    row = services.data_files.find_data(file_id)
    chosen = services.data_files.model(model, completions)
    if chosen is None:
        raise Unavailable(
            "No model is installed, and a row has tokens for a model only.",
            code="model_not_installed",
            param="model",
            mend="Fetch one with: tunesmith models pull",
        )
    path = services.data_files.local_path(row)
    raw = _index(services, row).row(path, line)
    if raw is None:
        raise NotFound(
            f"There is no row on line {line:,}.",
            param="line",
            code="row_not_found",
            mend="Lines count from 1; blank ones hold no row.",
        )
    return json_document(msgspec.json.encode(Previewer.of(chosen).show(path, raw, line)))


@router.get(
    "/{file_id}/rows",
    response_class=Response,
    responses=STILL_RUNNING | {200: json_response(RowPage, "Rows, with their findings once the file was checked.")},
)
def rows(
    file_id: str,
    services: ServicesDep,
    query: CheckQueryDep,
    after_line: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    rule: str | None = None,
) -> Response:
    """Rows after a line, in order; with ``rule`` only those in which it found something, which asks for a check."""
    check = Check(services, services.data_files.find_data(file_id), query)
    path, index = services.data_files.local_path(check.row), _index(services, check.row)
    if rule is None:
        kept = check.find()
        page = _page(index.rows(path, after_line), limit, None if kept is None else kept.findings)
    else:
        require_rule(rule)
        found = check.find_or_start()
        if isinstance(found, Running):
            return still_running(found)
        known = found.findings
        page = _page(index.rows_at(path, known.lines_with(rule, after_line)), limit, known)
    return json_document(msgspec.json.encode(page))


def _index(services: Services, row: FileRow) -> LineIndex:
    return LineIndex.of(services.data_files.local_path(row), services.reports.folder_of(row.sha256) / "lines.npy")


def _page(lines: Iterable[Line], limit: int, known: KeptFindings | None) -> RowPage:
    """Up to ``limit`` rows, fewer when they are large."""
    page: list[RowShown] = []
    num_bytes = 0
    for line, raw in lines:
        if len(page) == limit or (page and num_bytes + len(raw or b"") > MAX_PAGE_BYTES):
            return RowPage(data=page, has_more=True, is_checked=known is not None)
        page.append(_row(line, raw, None if known is None else known.of_line(line)))
        num_bytes += len(raw or b"")
    return RowPage(data=page, has_more=False, is_checked=known is not None)


def _row(line: int, raw: bytes | None, found: list[Finding] | None) -> RowShown:
    if raw is None:
        return RowShown(line=line, num_bytes=0, raw="(This line is too long to be read.)", findings=found)
    if _is_shown_as_json(raw):
        return RowShown(line=line, num_bytes=len(raw), row=msgspec.Raw(raw), findings=found)
    text = raw[: 4 * MAX_RAW_CHARS].decode("utf-8", "replace")[:MAX_RAW_CHARS]
    return RowShown(line=line, num_bytes=len(raw), raw=text, findings=found)


def _is_shown_as_json(raw: bytes) -> bool:
    """Whether it is an object that every client reads as we do. Decoded whole: msgspec looks into no ``Raw``."""
    try:
        msgspec.json.decode(raw, type=dict[str, object])
        if _HUGE_INTEGER.search(raw):
            json.loads(raw, parse_int=_finite)
    except (msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError):
        return False
    return True


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise OverflowError
    return number

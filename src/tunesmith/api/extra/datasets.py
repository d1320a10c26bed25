"""/api/files: a data file checked, read, mended and split. Files that are made are files like any other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response, StreamingResponse

from tunesmith.api.deps import Services, ServicesDep
from tunesmith.api.extra.data_process import MendTask, ModelFiles, SplitTask
from tunesmith.api.extra.kept_findings import KeptFindings
from tunesmith.api.extra.previews import Previewer
from tunesmith.api.extra.reports import FileToCheck, Report, Running
from tunesmith.api.wire.datasets import (
    CheckStatus,
    DatasetFile,
    MendBody,
    MendResult,
    RowPage,
    RowShown,
    SplitBody,
    SplitResult,
)
from tunesmith.api.wire.schema import json_response
from tunesmith.core.errors import Conflict, InvalidRequest, Unavailable
from tunesmith.data.findings import Finding
from tunesmith.data.line_index import LineIndex
from tunesmith.data.mend import MendSummary
from tunesmith.data.preview import Preview
from tunesmith.data.read import Line
from tunesmith.data.report import DatasetReport
from tunesmith.data.rules import RULES
from tunesmith.data.split_file import SplitSummary
from tunesmith.store.tables import FileRow

router = APIRouter(prefix="/api/files", tags=["data"])

MAX_PAGE_BYTES = 4 * 2**20
MAX_RAW_CHARS = 10_000

ModelName = Annotated[str | None, Query(description="A base or tuned model; by default the one that is built in.")]
STILL_RUNNING: dict[int | str, dict[str, Any]] = {
    202: {"description": "The check has not ended: ask again.", "model": CheckStatus}
}


@router.get("/{file_id}")
def retrieve(file_id: str, services: ServicesDep) -> DatasetFile:
    """A file with what it was made from, and what was made from it."""
    return _shown(services, services.data_files.find(file_id))


@router.get(
    "/{file_id}/report",
    response_class=Response,
    responses=STILL_RUNNING | {200: json_response(DatasetReport, "Everything that is known of the data set.")},
)
def report(file_id: str, services: ServicesDep, model: ModelName = None, refresh: bool = False) -> Response:
    """Check a file, once: 202 with the progress until the report is there. ``refresh`` checks it again."""
    row = services.data_files.find_data(file_id)
    found = _check(services, row, services.data_files.model(model), refresh)
    return _running(found) if isinstance(found, Running) else _json(found.document(row.filename))


@router.get(
    "/{file_id}/findings",
    response_class=Response,
    responses=STILL_RUNNING
    | {200: {"description": "Every finding, one JSON object a line.", "content": {"application/x-ndjson": {}}}},
)
def findings(file_id: str, services: ServicesDep, model: ModelName = None) -> Response:
    """Every finding of the report, not only its samples."""
    found = _check(services, services.data_files.find_data(file_id), services.data_files.model(model))
    if isinstance(found, Running):
        return _running(found)
    return StreamingResponse(found.findings.stream(), media_type="application/x-ndjson")


@router.get(
    "/{file_id}/preview",
    response_class=Response,
    responses={200: json_response(Preview, "The row as it is trained: the same tokens, the same digest.")},
)
def preview(
    file_id: str, services: ServicesDep, line: Annotated[int, Query(ge=1)] = 1, model: ModelName = None
) -> Response:
    """What the model sees of one row, and what it learns of it."""
    row = services.data_files.find_data(file_id)
    chosen = services.data_files.model(model)
    if chosen is None:
        raise Unavailable(
            "No model is installed, and a row has tokens for a model only.",
            code="model_not_installed",
            param="model",
            mend="Fetch one with: tunesmith models pull",
        )
    path = services.data_files.local_path(row)
    raw = _index(services, row, path).row(path, line)
    if raw is None:
        raise InvalidRequest(
            f"There is no row on line {line:,}.",
            param="line",
            code="invalid_value",
            mend="Lines count from 1; blank ones hold no row.",
        )
    return _json(msgspec.json.encode(Previewer.of(chosen).show(path, raw, line)))


@router.get(
    "/{file_id}/rows",
    response_class=Response,
    responses=STILL_RUNNING | {200: json_response(RowPage, "Rows, with their findings once the file was checked.")},
)
def rows(
    file_id: str,
    services: ServicesDep,
    after_line: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    rule: str | None = None,
    model: ModelName = None,
) -> Response:
    """Rows after a line, in order; with ``rule`` only those in which it found something, which asks for a check."""
    row = services.data_files.find_data(file_id)
    chosen = services.data_files.model(model)
    path = services.data_files.local_path(row)
    index = _index(services, row, path)
    if rule is None:
        kept = services.reports.find(row.sha256, chosen)
        known = None if kept is None else kept.findings
        page = _page(index.rows(path, after_line), limit, known)
    else:
        _require_rule(rule)
        found = _check(services, row, chosen)
        if isinstance(found, Running):
            return _running(found)
        known = found.findings
        lines = known.lines_with(rule, after_line)
        page = _page(((line, index.row(path, line)) for line in lines), limit, known)
    return _json(msgspec.json.encode(page))


@router.post("/{file_id}/mend", responses={200: json_response(MendResult, "The new file and what was changed.")})
def mend(file_id: str, body: MendBody, services: ServicesDep) -> Response:
    """Make a new file by the chosen fixes. The old one stays as it is."""
    parent = services.data_files.find_data(file_id)
    model = services.data_files.model(body.model)
    lines = _lines_to_drop(services, parent, body, model)
    with services.data_files.room() as room:
        out = room / "mended.jsonl"
        task = MendTask(
            path=str(services.data_files.local_path(parent)),
            out=str(out),
            fixes=body.fixes,
            lines=lines,
            model=model if "drop_rows" in body.fixes and lines is None else None,
        )
        summary = msgspec.json.decode(services.data_tasks.run(task), type=MendSummary)
        if summary.is_unchanged:
            raise InvalidRequest(
                "These fixes change nothing in the file, so no new file was made.",
                param="fixes",
                code="nothing_to_mend",
                mend="Choose the fixes that the report's groups name.",
            )
        lineage = _mend_lineage(body, model, summary)
        (made,) = services.data_files.keep(parent, [(out, "mended")], lambda _: [lineage])
    return _json(msgspec.json.encode(MendResult(file=_document(services, made), summary=summary)))


@router.post("/{file_id}/split", responses={200: json_response(SplitResult, "The two new files.")})
def split(file_id: str, body: SplitBody, services: ServicesDep) -> Response:
    """Make a file to train on and a file for validation. The old one stays as it is."""
    parent = services.data_files.find_data(file_id)
    with services.data_files.room() as room:
        train, valid = room / "train.jsonl", room / "valid.jsonl"
        task = SplitTask(
            path=str(services.data_files.local_path(parent)),
            out_train=str(train),
            out_valid=str(valid),
            share=body.share,
            count=body.count,
            seed=body.seed,
        )
        summary = msgspec.json.decode(services.data_tasks.run(task), type=SplitSummary)
        parts = [(train, "train"), (valid, "valid")]
        made = services.data_files.keep(parent, parts, lambda ids: _split_lineages(body, summary, ids))
    shown = [_document(services, row) for row in made]
    return _json(msgspec.json.encode(SplitResult(train=shown[0], valid=shown[1], summary=summary)))


def _check(services: Services, row: FileRow, model: ModelFiles | None, refresh: bool = False) -> Report | Running:
    file = FileToCheck(row.sha256, row.filename, services.data_files.local_path(row))
    return services.reports.get(file, model, refresh=refresh)


def _index(services: Services, row: FileRow, path: Path) -> LineIndex:
    return LineIndex.of(path, services.reports.folder_of(row.sha256) / "lines.npy")


def _running(check: Running) -> Response:
    status = CheckStatus(status=check.status, progress=check.fraction, eta_s=check.eta_s)
    return JSONResponse(status.model_dump(), status_code=202, headers={"retry-after": "1"})


def _json(document: bytes) -> Response:
    return Response(document, media_type="application/json")


def _shown(services: Services, row: FileRow) -> DatasetFile:
    return DatasetFile.with_children(row, services.data_files.children_of(row.id))


def _document(services: Services, row: FileRow) -> dict[str, Any]:
    return _shown(services, row).model_dump()


def _page(lines: Iterator[Line], limit: int, known: KeptFindings | None) -> RowPage:
    """Up to ``limit`` rows, fewer when they are large."""
    shown: list[RowShown] = []
    num_bytes = 0
    for line, raw in lines:
        if len(shown) == limit or (shown and num_bytes + len(raw or b"") > MAX_PAGE_BYTES):
            return RowPage(data=shown, has_more=True, is_checked=known is not None)
        shown.append(_row(line, raw, None if known is None else known.of_line(line)))
        num_bytes += len(raw or b"")
    return RowPage(data=shown, has_more=False, is_checked=known is not None)


def _row(line: int, raw: bytes | None, found: list[Finding] | None) -> RowShown:
    if raw is None:
        return RowShown(line=line, num_bytes=0, raw="(This line is too long to be read.)", findings=found)
    try:
        msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        text = raw[: 4 * MAX_RAW_CHARS].decode("utf-8", "replace")[:MAX_RAW_CHARS]
        return RowShown(line=line, num_bytes=len(raw), raw=text, findings=found)
    return RowShown(line=line, num_bytes=len(raw), row=msgspec.Raw(raw), findings=found)


def _require_rule(rule: str, param: str = "rule") -> None:
    if rule not in RULES:
        raise InvalidRequest(
            f"There is no rule {rule!r}.",
            param=param,
            code="invalid_value",
            mend="docs/reference/doctor-rules.md lists every rule.",
        )


def _lines_to_drop(services: Services, row: FileRow, body: MendBody, model: ModelFiles | None) -> list[int] | None:
    """The chosen lines and those of the chosen rules; None when neither was chosen."""
    if body.rules is None:
        return body.lines
    for index, rule in enumerate(body.rules):
        _require_rule(rule, f"rules[{index}]")
    found = _check(services, row, model)
    if isinstance(found, Running):
        raise Conflict(
            "The file is still being checked: what the rules find is not known yet.",
            code="report_not_ready",
            mend=f"Wait until GET /api/files/{row.id}/report answers 200.",
        )
    lines = {line for rule in body.rules for line in found.findings.lines_with(rule, 0)}
    return sorted(lines | set(body.lines or ()))


def _mend_lineage(body: MendBody, model: ModelFiles | None, summary: MendSummary) -> dict[str, Any]:
    """What was chosen and what changed, in numbers: no text of the data."""
    return {
        "action": "mend",
        "fixes": [count.fix for count in summary.fixes],
        "num_lines": None if body.lines is None else len(body.lines),
        "rules": body.rules,
        "model": None if model is None else model.name,
        "num_rows_before": summary.num_rows_before,
        "num_rows_after": summary.num_rows_after,
        "num_changed": summary.num_changed,
        "num_dropped": summary.num_dropped,
    }


def _split_lineages(body: SplitBody, summary: SplitSummary, ids: list[str]) -> list[dict[str, Any]]:
    shared = {"action": "split", "share": body.share, "count": body.count, "seed": summary.seed}
    return [
        {**shared, "side": "train", "num_rows": summary.num_train, "other_side": ids[1]},
        {**shared, "side": "valid", "num_rows": summary.num_valid, "other_side": ids[0]},
    ]

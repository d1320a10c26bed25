"""/api/files/{id}/mend and /split: new files made from a data file, files like any other."""

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from tunesmith.api.deps import Services, ServicesDep
from tunesmith.api.extra.checks import Check, CheckQuery, json_document, require_rule, shown
from tunesmith.api.extra.data_process import MendTask, SplitTask
from tunesmith.api.extra.reports import Running
from tunesmith.api.wire.datasets import MendBody, MendLineage, MendResult, SplitBody, SplitLineage, SplitResult
from tunesmith.api.wire.schema import json_response
from tunesmith.core.errors import Conflict
from tunesmith.data.mend import MendSummary
from tunesmith.data.split_file import SplitSummary
from tunesmith.store.tables import FileRow

router = APIRouter(prefix="/api/files", tags=["data"])


@router.post("/{file_id}/mend", responses={200: json_response(MendResult, "The new file and what was changed.")})
def mend(file_id: str, body: MendBody, services: ServicesDep) -> Response:
    """Make a new file by the chosen fixes. The old one stays as it is."""
    parent = services.data_files.find_data(file_id)
    with services.data_tasks.place(), services.data_files.room() as room:
        check = Check(services, parent, CheckQuery(body.model, body.completions, body.validation))
        lines, out = _lines_to_drop(check, body), room / "mended.jsonl"
        task = MendTask(
            path=str(services.data_files.local_path(parent)),
            out=str(out),
            fixes=body.fixes,
            lines=lines,
            model=check.model if "drop_rows" in body.fixes and lines is None else None,
        )
        summary = msgspec.json.decode(services.data_tasks.run(task), type=MendSummary)
        lineage = msgspec.to_builtins(_mend_lineage(body, check, summary))
        (made,) = services.data_files.keep(parent, [(out, "mended")], lambda _: [lineage])
    return json_document(msgspec.json.encode(MendResult(file=_document(services, made), summary=summary)))


@router.post("/{file_id}/split", responses={200: json_response(SplitResult, "Two new files and how they came about.")})
def split(file_id: str, body: SplitBody, services: ServicesDep) -> Response:
    """Make a file to train on and one for validation. The old one stays as it is."""
    parent = services.data_files.find_data(file_id)
    with services.data_tasks.place(), services.data_files.room() as room:
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
    train_file, valid_file = (_document(services, row) for row in made)
    return json_document(msgspec.json.encode(SplitResult(train=train_file, valid=valid_file, summary=summary)))


def _document(services: Services, row: FileRow) -> dict[str, Any]:
    document: dict[str, Any] = shown(services, row).model_dump()
    return document


def _lines_to_drop(check: Check, body: MendBody) -> list[int] | None:
    """The chosen lines and those of the chosen rules; None when neither was chosen."""
    if body.rules is None:
        return body.lines
    for index, rule in enumerate(body.rules):
        require_rule(rule, f"rules[{index}]")
    found = check.find_or_start()
    if isinstance(found, Running):
        raise Conflict(
            "The file is still being checked: what the rules find is not known yet.",
            code="report_not_ready",
            mend=f"Wait until GET /api/files/{check.row.id}/report answers 200.",
        )
    lines = {line for rule in body.rules for line in found.findings.lines_with(rule, 0)}
    return sorted(lines | set(body.lines or ()))


def _mend_lineage(body: MendBody, check: Check, summary: MendSummary) -> MendLineage:
    return MendLineage(
        fixes=[count.fix for count in summary.fixes],
        num_lines=None if body.lines is None else len(body.lines),
        rules=body.rules,
        model=None if check.model is None else check.model.name,
        completions=None if check.model is None else check.model.completions,
        validation=body.validation,
        num_rows_before=summary.num_rows_before,
        num_rows_after=summary.num_rows_after,
        num_changed=summary.num_changed,
        num_dropped=summary.num_dropped,
    )


def _split_lineages(body: SplitBody, summary: SplitSummary, ids: list[str]) -> list[dict[str, Any]]:
    shared: dict[str, Any] = {"share": body.share, "count": body.count, "seed": summary.seed}
    train = SplitLineage(**shared, side="train", num_rows=summary.num_train, other_side=ids[1])
    valid = SplitLineage(**shared, side="valid", num_rows=summary.num_valid, other_side=ids[0])
    return [msgspec.to_builtins(train), msgspec.to_builtins(valid)]

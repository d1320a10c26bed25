"""/v1/files."""

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from tunesmith.api.deps import Services, ServicesDep
from tunesmith.api.upload import UploadedForm
from tunesmith.api.wire.files import UPLOAD_PURPOSES, File, FileList
from tunesmith.api.wire.shape import Deleted
from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.core.ids import new_id
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.tables import FileRow

router = APIRouter(prefix="/v1/files", tags=["files"])

MIN_EXPIRY_S, MAX_EXPIRY_S = 3_600, 2_592_000
MAX_FILENAME_LENGTH = 255

UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(UPLOAD_PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": MIN_EXPIRY_S, "maximum": MAX_EXPIRY_S},
                    },
                }
            }
        },
    }
}


@router.post("", openapi_extra=UPLOAD_FORM)
async def create_file(request: Request, services: ServicesDep) -> File:
    """Store a file. It is ``processed`` at once: a training file's rows are checked by the job that uses it."""
    form = UploadedForm(services.blobs, services.settings.max_file_bytes)
    try:
        await form.read(request)
        row = _describe(form)
    except BaseException:  # also when the client hangs up: nothing half-written may stay
        await run_in_threadpool(form.abort)
        raise
    return await run_in_threadpool(_keep, services, form, row)


@router.get("")
def list_files(
    services: ServicesDep,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> FileList:
    with services.database.reading() as session:
        rows, has_more = FileRepo(session).list_page(after=after, limit=limit, order=order, purpose=purpose)
    return FileList.of(rows, has_more)


@router.get("/{file_id}")
def retrieve_file(file_id: str, services: ServicesDep) -> File:
    return File.of(_find(services, file_id))


@router.get("/{file_id}/content", response_class=Response)
def retrieve_content(file_id: str, services: ServicesDep) -> Response:
    """The file's bytes as they were uploaded.

    A job's results file is plain CSV, not the base64 text of some of OpenAI's: every client that decodes also reads
    plain text, but for one notebook, and people can read it.
    """
    row = _find(services, file_id)
    headers = {
        "content-length": str(services.blobs.size(row.id)),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(row.filename)}",
    }
    return StreamingResponse(services.blobs.open(row.id), media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}")
def delete_file(file_id: str, services: ServicesDep) -> Deleted:
    with services.database.session() as session:
        files = FileRepo(session)
        row = files.get(file_id)
        if row is None or not files.delete(file_id):
            raise _no_such_file(file_id)
        is_last = not files.has_digest(row.sha256)
    services.blobs.delete(file_id)
    if is_last:
        services.forget_content(row.sha256)
    return Deleted(id=file_id, object="file")


def _find(services: Services, file_id: str) -> FileRow:
    with services.database.reading() as session:
        row = FileRepo(session).get(file_id)
    if row is None or (row.expires_at is not None and row.expires_at <= unix_now_s()):
        raise _no_such_file(file_id)
    return row


def _no_such_file(file_id: str) -> NotFound:
    return NotFound(f"No such File object: {file_id}", param="id")


def _describe(form: UploadedForm) -> FileRow:
    """The row for a form that was read to its end. Raises InvalidRequest for what OpenAI refuses at upload."""
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise _missing("purpose")
    if purpose not in UPLOAD_PURPOSES:
        supported = ", ".join(f"'{name}'" for name in UPLOAD_PURPOSES)
        message = f"Invalid value: {purpose!r}. Supported values are: {supported}."
        raise InvalidRequest(message, param="purpose", code="invalid_value")
    if form.filename is None:
        raise _missing("file")
    if form.num_bytes == 0:
        raise InvalidRequest("File is empty.", param="file", code="empty_file")
    if purpose == "fine-tune":
        _require_jsonl(form)
    now_s = unix_now_s()
    return FileRow(
        id=new_id("file-"),
        created_at=now_s,
        bytes=form.num_bytes,
        filename=_shown_name(form.filename),
        purpose=purpose,
        status="processed",
        expires_at=_expiry(form.fields, now_s),
    )


def _missing(param: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _require_jsonl(form: UploadedForm) -> None:
    assert form.filename is not None
    if not form.filename.lower().endswith(".jsonl"):
        raise InvalidRequest("Invalid file format for Fine-Tuning API. Must be .jsonl", param="file")
    form.first_line.require_object()


def _keep(services: Services, form: UploadedForm, row: FileRow) -> File:
    facts = form.commit(row.id)
    row.sha256 = facts.sha256
    try:
        with services.database.session() as session:
            FileRepo(session).add(row)
    except BaseException:  # bytes without a row are nobody's, for ever
        services.blobs.delete(row.id)
        raise
    return File.of(row)


def _shown_name(filename: str) -> str:
    """The name that lists show. It never reaches the file system; control characters would spoil terminals."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    clean = "".join(letter for letter in name if unicodedata.category(letter)[0] != "C")
    return clean[:MAX_FILENAME_LENGTH] or "file"


def _expiry(fields: dict[str, str], now_s: int) -> int | None:
    """When the file expires, by the form's ``expires_after``; None when it does not."""
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidRequest("Supported values are: 'created_at'.", param="expires_after.anchor", code="invalid_value")
    if seconds is None or not re.fullmatch(r"\d{1,9}", seconds) or not MIN_EXPIRY_S <= int(seconds) <= MAX_EXPIRY_S:
        message = f"Expected a number of seconds from {MIN_EXPIRY_S} to {MAX_EXPIRY_S}."
        raise InvalidRequest(message, param="expires_after.seconds", code="invalid_value")
    return now_s + int(seconds)

"""The File object and its list."""

from typing import Literal, Self, get_args

from tunesmith.api.wire.shape import ResponseBody, omitted_if_none
from tunesmith.store.tables import FileRow

UploadPurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
UPLOAD_PURPOSES: tuple[str, ...] = get_args(UploadPurpose)


class File(ResponseBody):
    """One stored file. ``status`` and ``status_details`` are deprecated, yet ``status`` is required."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = omitted_if_none()
    filename: str
    purpose: str
    status: str
    status_details: str | None = omitted_if_none()

    @classmethod
    def of(cls, row: FileRow) -> Self:
        return cls(
            id=row.id,
            bytes=row.bytes,
            created_at=row.created_at,
            expires_at=row.expires_at,
            filename=row.filename,
            purpose=row.purpose,
            status=row.status,
            status_details=row.status_details,
        )


class FileList(ResponseBody):
    """A page of files. ``first_id`` and ``last_id`` are required strings, so they are empty on an empty page."""

    object: Literal["list"] = "list"
    data: list[File]
    first_id: str
    last_id: str
    has_more: bool

    @classmethod
    def of(cls, rows: list[FileRow], has_more: bool) -> Self:
        first, last = (rows[0].id, rows[-1].id) if rows else ("", "")
        return cls(data=[File.of(row) for row in rows], first_id=first, last_id=last, has_more=has_more)

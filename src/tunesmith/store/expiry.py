"""Files that were uploaded for a limited time."""

from collections.abc import Callable

from tunesmith.store.blobs import BlobStore
from tunesmith.store.db import Database
from tunesmith.store.repos.files import FileRepo

Forget = Callable[[str], None]
"""Told the SHA-256 of a content that no file has any more: what was derived from it is to go too."""


def forget_nothing(_sha256: str) -> None:
    """For who keeps nothing that is derived."""


def delete_expired_files(database: Database, blobs: BlobStore, now: int, forget: Forget = forget_nothing) -> int:
    """Delete every file whose ``expires_at`` (Unix seconds) has passed, row first; how many there were."""
    with database.session() as session:
        files = FileRepo(session)
        expired = {row.id: row.sha256 for row in files.list_expired(now)}
        for file_id in expired:
            files.delete(file_id)
        gone = [sha256 for sha256 in set(expired.values()) if not files.has_digest(sha256)]
    for file_id in expired:
        blobs.delete(file_id)
    for sha256 in gone:
        forget(sha256)
    return len(expired)

"""Files that were uploaded for a limited time."""

from tunesmith.store.blobs import BlobStore
from tunesmith.store.db import Database
from tunesmith.store.repos.files import FileRepo


def delete_expired_files(database: Database, blobs: BlobStore, now: int) -> int:
    """Delete every file whose ``expires_at`` (Unix seconds) has passed, row first; how many there were."""
    with database.session() as session:
        files = FileRepo(session)
        expired = [row.id for row in files.list_expired(now)]
        for file_id in expired:
            files.delete(file_id)
    for file_id in expired:
        blobs.delete(file_id)
    return len(expired)

"""Files."""

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from tunesmith.store.repos.paging import Order, page
from tunesmith.store.tables import FileRow


class FileRepo:
    def __init__(self, session: Session):
        self._session = session

    def add(self, row: FileRow) -> FileRow:
        self._session.add(row)
        self._session.flush()
        return row

    def get(self, file_id: str) -> FileRow | None:
        return self._session.scalar(select(FileRow).where(FileRow.id == file_id))

    def list_page(
        self,
        *,
        after: str | None = None,
        limit: int = 10_000,
        order: Order = "desc",
        purpose: str | None = None,
        alive_at: int | None = None,
    ) -> tuple[list[FileRow], bool]:
        """Files in the order of their creation, and whether more follow; with ``alive_at`` none expired by then."""
        query = select(FileRow)
        if purpose is not None:
            query = query.where(FileRow.purpose == purpose)
        if alive_at is not None:
            query = query.where(or_(FileRow.expires_at.is_(None), FileRow.expires_at > alive_at))
        return page(self._session, FileRow, query, after=after, limit=limit, order=order)

    def list_children(self, file_id: str) -> list[FileRow]:
        """Files that were made from this one, oldest first."""
        return list(self._session.scalars(select(FileRow).where(FileRow.parent_id == file_id).order_by(FileRow.number)))

    def list_digests(self) -> set[str]:
        """SHA-256 of every file's content."""
        return set(self._session.scalars(select(FileRow.sha256).distinct()))

    def has_digest(self, sha256: str) -> bool:
        """Whether a file has this content."""
        return self._session.scalar(select(FileRow.id).where(FileRow.sha256 == sha256).limit(1)) is not None

    def delete(self, file_id: str) -> bool:
        """Remove the row; whether there was one. The caller deletes the blob after the transaction."""
        statement = delete(FileRow).where(FileRow.id == file_id).returning(FileRow.id)
        return self._session.scalar(statement) is not None

    def list_expired(self, now: int) -> list[FileRow]:
        """Files whose ``expires_at`` has passed."""
        return list(self._session.scalars(select(FileRow).where(FileRow.expires_at <= now)))

"""Events of jobs: written once, whoever writes them again."""

from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from tunesmith.core.ids import stable_id
from tunesmith.store.repos.paging import page
from tunesmith.store.tables import EventRow

Source = Literal["server", "trainer"]


class EventRepo:
    def __init__(self, session: Session):
        self._session = session

    def add(
        self,
        job_id: str,
        *,
        source: Source,
        source_seq: int,
        created_at: int,
        message: str,
        level: str = "info",
        type: str = "message",
        data: dict[str, Any] | None = None,
    ) -> bool:
        """Store an event unless (job_id, source, source_seq) is there already; whether it was new."""
        insert = sqlite.insert if self._session.get_bind().dialect.name == "sqlite" else postgresql.insert
        statement = insert(EventRow).values(
            id=stable_id("ftevent-", job_id, source, source_seq),
            job_id=job_id,
            source=source,
            source_seq=source_seq,
            created_at=created_at,
            level=level,
            type=type,
            message=message,
            data=data or {},
        )
        stored = statement.on_conflict_do_nothing().returning(EventRow.number)
        return self._session.scalar(stored) is not None

    def add_from_server(
        self, job_id: str, created_at: int, message: str, *, level: str = "info", data: dict[str, Any] | None = None
    ) -> None:
        """The server's next event of a job. The caller holds the job's row, so the sequence has no gap."""
        last = self._session.scalar(
            select(func.max(EventRow.source_seq)).where(EventRow.job_id == job_id, EventRow.source == "server")
        )
        self.add(
            job_id,
            source="server",
            source_seq=(last or 0) + 1,
            created_at=created_at,
            message=message,
            level=level,
            data=data,
        )

    def list_page(self, job_id: str, *, after: str | None = None, limit: int = 20) -> tuple[list[EventRow], bool]:
        """Events of one job, newest first, and whether more follow."""
        query = select(EventRow).where(EventRow.job_id == job_id)
        return page(self._session, EventRow, query, after=after, limit=limit)

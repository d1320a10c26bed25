"""Checkpoints of jobs."""

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from tunesmith.store.repos.paging import page
from tunesmith.store.tables import CheckpointRow


class CheckpointRepo:
    def __init__(self, session: Session):
        self._session = session

    def add(self, row: CheckpointRow) -> CheckpointRow:
        self._session.add(row)
        self._session.flush()
        return row

    def get(self, checkpoint_id: str) -> CheckpointRow | None:
        return self._session.scalar(select(CheckpointRow).where(CheckpointRow.id == checkpoint_id))

    def get_step(self, job_id: str, step: int) -> CheckpointRow | None:
        query = select(CheckpointRow).where(CheckpointRow.job_id == job_id, CheckpointRow.step == step)
        return self._session.scalar(query)

    def get_last(self, job_id: str) -> CheckpointRow | None:
        """The checkpoint with the most steps that is still there."""
        query = select(CheckpointRow).where(CheckpointRow.job_id == job_id, CheckpointRow.deleted.is_(False))
        return self._session.scalar(query.order_by(CheckpointRow.step.desc()).limit(1))

    def list_page(self, job_id: str, *, after: str | None = None, limit: int = 10) -> tuple[list[CheckpointRow], bool]:
        """Checkpoints of one job that are still there, newest first, and whether more follow."""
        query = select(CheckpointRow).where(CheckpointRow.job_id == job_id, CheckpointRow.deleted.is_(False))
        return page(self._session, CheckpointRow, query, after=after, limit=limit)

    def mark_best(self, job_id: str, step: int) -> None:
        """Of all checkpoints of a job the one at ``step`` is the best, and no other."""
        rows = update(CheckpointRow).where(CheckpointRow.job_id == job_id)
        self._session.execute(rows.values(is_best=CheckpointRow.step == step))

    def mark_deleted(self, job_id: str, steps: Sequence[int]) -> None:
        rows = update(CheckpointRow).where(CheckpointRow.job_id == job_id, CheckpointRow.step.in_(steps))
        self._session.execute(rows.values(deleted=True))

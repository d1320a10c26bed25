"""Jobs, their queue and the lease on them.

A supervisor owns a job while its lease lasts: ``claim_next`` takes one in one transaction, ``hold`` renews it at the
start of every later transaction of the owner and fails once somebody else has it. Times of leases are Unix seconds
of the supervisors' clocks, which must agree to well within ``settings.lease_s``.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, text, update
from sqlalchemy.orm import Session

from tunesmith.store.repos.paging import page
from tunesmith.store.tables import JobRow

# Any fixed number will do: it names the lock under which one supervisor at a time counts and claims.
QUEUE_LOCK = 7_305_218_002


class JobRepo:
    def __init__(self, session: Session):
        self._session = session
        self._is_sqlite = session.get_bind().dialect.name == "sqlite"

    def add(self, row: JobRow) -> JobRow:
        self._session.add(row)
        self._session.flush()
        return row

    def get(self, job_id: str) -> JobRow | None:
        return self._session.scalar(select(JobRow).where(JobRow.id == job_id))

    def get_for_update(self, job_id: str) -> JobRow | None:
        """The job's row, kept from everybody else until the transaction ends."""
        query = select(JobRow).where(JobRow.id == job_id).with_for_update()
        return self._session.scalar(query.execution_options(populate_existing=True))

    def list_page(
        self, *, after: str | None = None, limit: int = 20, metadata: Mapping[str, str] | None = None
    ) -> tuple[list[JobRow], bool]:
        """Jobs, newest first, and whether more follow. Every pair of ``metadata`` must be the job's.

        None does not filter; an empty mapping means jobs without metadata.
        """
        query = select(JobRow)
        if metadata is not None and not metadata:
            query = query.where(JobRow.user_metadata.is_(None))
        for key, value in (metadata or {}).items():
            query = query.where(self._has_metadata(key, value))
        return page(self._session, JobRow, query, after=after, limit=limit)

    def claim_next(self, owner: str, *, now: float, lease_s: float, max_running: int) -> JobRow | None:
        """Take the oldest job that needs attention and that nobody attends to, or None.

        A queued job counts only while fewer than ``max_running`` jobs, of all owners, occupy the machine; it
        occupies the machine from this moment on.
        """
        self._lock_queue()
        wanted = [JobRow.status == "validating_files", JobRow.occupies_machine.is_(True)]
        if self.count_running() < max_running:
            wanted.append(JobRow.status == "queued")
        query = select(JobRow.id).where(or_(*wanted), _is_free(now)).order_by(JobRow.number).limit(1)
        job_id = self._session.scalar(query.with_for_update())
        if job_id is None:
            return None
        claim = update(JobRow).where(JobRow.id == job_id, _is_free(now))
        self._session.execute(claim.values(lease_owner=owner, lease_expires_at=now + lease_s))
        job = self.get_for_update(job_id)
        assert job is not None
        job.occupies_machine = job.occupies_machine or job.status == "queued"
        return job

    def hold(self, job_id: str, owner: str, *, now: float, lease_s: float) -> JobRow | None:
        """Renew the owner's lease and return the job's row locked; None once somebody else took the job."""
        mine = update(JobRow).where(JobRow.id == job_id, JobRow.lease_owner == owner)
        renewed = self._session.scalar(mine.values(lease_expires_at=now + lease_s).returning(JobRow.id))
        return None if renewed is None else self.get_for_update(job_id)

    def renew(self, job_ids: Sequence[str], owner: str, *, now: float, lease_s: float) -> set[str]:
        """Renew the owner's leases on these jobs; those of them that are still the owner's."""
        mine = update(JobRow).where(JobRow.id.in_(job_ids), JobRow.lease_owner == owner)
        return set(self._session.scalars(mine.values(lease_expires_at=now + lease_s).returning(JobRow.id)))

    def release(self, job_ids: Sequence[str], owner: str) -> None:
        """Give up the owner's leases, so that the next supervisor need not wait for them to run out."""
        mine = update(JobRow).where(JobRow.id.in_(job_ids), JobRow.lease_owner == owner)
        self._session.execute(mine.values(lease_owner=None, lease_expires_at=0.0))

    def count_running(self) -> int:
        """Jobs that occupy the machine, over all owners."""
        query = select(func.count()).select_from(JobRow).where(JobRow.occupies_machine.is_(True))
        return self._session.scalar(query) or 0

    def _lock_queue(self) -> None:
        # SQLite writers are one at a time already. PostgreSQL would let two supervisors count the same free place.
        if not self._is_sqlite:
            self._session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": QUEUE_LOCK})

    def _has_metadata(self, key: str, value: str) -> ColumnElement[bool]:
        if self._is_sqlite:
            pair = func.json_each(JobRow.user_metadata).table_valued("key", "value")
            return exists(select(pair.c.key).where(and_(pair.c.key == key, pair.c.value == value)))
        return JobRow.user_metadata.op("->>")(key) == value


def _is_free(now: float) -> ColumnElement[bool]:
    return or_(JobRow.lease_owner.is_(None), JobRow.lease_expires_at < now)

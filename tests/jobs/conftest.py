import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from job_world import World

from databases import database, database_url, postgres_server
from tunesmith.store.db import Database

__all__ = ["database", "database_url", "postgres_server"]


@pytest.fixture
def world(database: Database, database_url: str, tmp_path: Path) -> Iterator[World]:
    """An installation on each kind of database; trainers that a test leaves running are ended."""
    world = World(tmp_path / "home", database, database_url)
    yield world
    world.close()


@pytest.fixture
def sqlite_world(tmp_path: Path) -> Iterator[World]:
    """An installation on SQLite, for what does not depend on the database."""
    url = f"sqlite:///{tmp_path / 'tunesmith.db'}"
    database = Database(url)
    database.migrate()
    world = World(tmp_path / "home", database, url)
    yield world
    world.close()
    database.close()

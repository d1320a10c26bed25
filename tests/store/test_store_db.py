"""Migrations, transactions and what an address may be."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from store_rows import file_row

from tunesmith.core.errors import InvalidRequest, Unavailable
from tunesmith.store.db import Database
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.tables import Base

MIGRATE = "import sys; from tunesmith.store.db import Database; Database(sys.argv[1]).migrate()"


def test_migrations_make_exactly_the_tables_of_the_models(database: Database) -> None:
    with database.reading() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_two_servers_may_migrate_at_once_and_again(database_url: str) -> None:
    servers = [subprocess.Popen([sys.executable, "-c", MIGRATE, database_url]) for _ in range(3)]
    assert [server.wait(60) for server in servers] == [0, 0, 0]
    database = Database(database_url)
    database.migrate()
    with database.reading() as session:
        assert "jobs" in inspect(session.connection()).get_table_names()
    database.close()


def test_sqlite_keeps_a_write_ahead_log_and_checks_foreign_keys(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    database.migrate()
    with database.reading() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
    database.close()


def test_an_exception_rolls_the_transaction_back(database: Database) -> None:
    def add_and_fail() -> None:
        with database.session() as session:
            FileRepo(session).add(file_row("file-1"))
            raise KeyError

    with pytest.raises(KeyError):
        add_and_fail()
    with database.reading() as session:
        assert FileRepo(session).get("file-1") is None


def test_rows_stay_readable_after_the_transaction(database: Database) -> None:
    with database.session() as session:
        row = FileRepo(session).add(file_row("file-1"))
    assert row.filename == "rows.jsonl"


def test_writers_wait_for_one_another(database: Database) -> None:
    def write(worker: int) -> None:
        for count in range(5):
            with database.session() as session:
                FileRepo(session).list_page()
                FileRepo(session).add(file_row(f"file-{worker}-{count}"))

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert len(FileRepo(session).list_page()[0]) == 30


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.session() as writing, database.reading() as reading:
        FileRepo(writing).add(file_row("file-1"))
        assert FileRepo(reading).get("file-1") is None


def test_ping_says_so_when_the_database_is_gone() -> None:
    database = Database("postgresql://nobody@127.0.0.1:9/none?connect_timeout=2")
    with pytest.raises(Unavailable) as caught:
        database.ping()
    assert caught.value.code == "database_unavailable"


def test_ping_is_content_with_a_database_that_answers(database: Database) -> None:
    database.ping()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://root@localhost/x", "nonsense"])
def test_addresses_that_cannot_hold_the_rows_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Database(url)
    assert caught.value.param == "database_url"


def test_a_sqlite_file_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'new' / 'home' / 'a.db'}")
    database.migrate()
    database.ping()
    database.close()


def test_migrations_can_be_taken_back(database_url: str) -> None:
    from alembic import command
    from alembic.config import Config

    database = Database(database_url)
    database.migrate()
    database.close()
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "tunesmith.store:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()

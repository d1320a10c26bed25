"""Files that expire."""

from pathlib import Path

import pytest
from store_rows import file_row

from tunesmith.core.errors import NotFound
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import Database
from tunesmith.store.expiry import delete_expired_files
from tunesmith.store.repos.files import FileRepo


def test_expired_files_go_with_their_bytes_and_others_stay(database: Database, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    for file_id, expires_at in (("file-old", 10), ("file-new", 11), ("file-ever", None)):
        blobs.open_writer().commit(file_id)
        with database.session() as session:
            FileRepo(session).add(file_row(file_id, expires_at=expires_at))
    assert delete_expired_files(database, blobs, now=10) == 1
    with database.reading() as session:
        assert [row.id for row in FileRepo(session).list_page()[0]] == ["file-ever", "file-new"]
    assert blobs.size("file-new") == 0
    with pytest.raises(NotFound):
        blobs.size("file-old")


def test_what_no_file_holds_any_more_is_told(database: Database, tmp_path: Path) -> None:
    with database.session() as session:
        for file_id, expires_at, digest in (
            ("file-a", 1, "a"),
            ("file-b", 1, "a"),
            ("file-c", 1, "c"),
            ("file-d", 9, "c"),
        ):
            FileRepo(session).add(file_row(file_id, expires_at=expires_at, sha256=digest))
    gone: list[str] = []
    assert delete_expired_files(database, LocalBlobs(tmp_path / "blobs"), 5, gone.append) == 3
    assert gone == ["a"]

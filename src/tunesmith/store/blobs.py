"""Bytes by key: a local folder, or any S3 store through obstore. The same protocol for both.

Keys are our own identifiers, never a user's file name. What is being written has a temporary name until
``commit``: a reader sees all of a blob or nothing.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.core.settings import Settings

CHUNK_BYTES = 2**20
# An upload that has not grown for this long was left behind by a process that died.
STALE_UPLOAD_S = 24 * 3600


@dataclass(frozen=True)
class BlobFacts:
    num_bytes: int
    sha256: str


class BlobWriter(Protocol):
    """Takes bytes as they come. Exactly one of ``commit`` and ``abort`` ends it."""

    num_bytes: int

    def write(self, data: bytes) -> None: ...

    def commit(self, key: str) -> BlobFacts:
        """Make what was written readable under ``key``, safe against a power cut."""

    def abort(self) -> None:
        """Forget what was written."""


class BlobStore(Protocol):
    """Reads raise ``NotFound`` for a key that is not there; ``delete`` of one is no error."""

    def open_writer(self) -> BlobWriter: ...

    def open(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` to before ``end`` (None: to the last), in pieces of at most a few MiB."""

    def size(self, key: str) -> int: ...

    def path(self, key: str) -> Path | None:
        """Where the blob lies on this machine, or None where it lies elsewhere."""

    def fetch(self, key: str, to: Path) -> None:
        """Copy the blob to the local file ``to``, which appears complete or not at all."""

    def delete(self, key: str) -> None: ...


def make_blobs(settings: Settings) -> BlobStore:
    """The store that ``settings.blob_url`` names; the folder ``home/blobs`` where it is empty."""
    if not settings.blob_url:
        return LocalBlobs(settings.blobs_dir)
    if settings.blob_url.startswith("s3://"):
        return S3Blobs(settings.blob_url)
    raise InvalidRequest(
        f"{settings.blob_url!r} is not a blob store.", param="blob_url", mend="Give s3://bucket/prefix, or nothing."
    )


class LocalBlobs:
    """Blobs as files in ``directory``; unfinished ones in its folder ``incoming``."""

    def __init__(self, directory: Path):
        self._dir = directory
        self._incoming = directory / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def open_writer(self) -> "LocalBlobWriter":
        return LocalBlobWriter(self._dir, self._incoming / secrets.token_hex(16))

    def open(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return _read_range(self._existing(key), start, end)

    def size(self, key: str) -> int:
        return self._existing(key).stat().st_size

    def path(self, key: str) -> Path | None:
        return self._existing(key)

    def fetch(self, key: str, to: Path) -> None:
        _write_whole(to, self.open(key))

    def delete(self, key: str) -> None:
        (self._dir / _checked(key)).unlink(missing_ok=True)

    def _existing(self, key: str) -> Path:
        path = self._dir / _checked(key)
        if not path.is_file():
            raise _no_blob(key)
        return path

    def _sweep(self) -> None:
        oldest = time.time() - STALE_UPLOAD_S
        for path in self._incoming.iterdir():
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)


class LocalBlobWriter:
    def __init__(self, directory: Path, temporary: Path):
        self._dir = directory
        self._temporary = temporary
        self._file = temporary.open("xb")
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.num_bytes += len(data)

    def commit(self, key: str) -> BlobFacts:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._dir / _checked(key))
        _sync_directory(self._dir)
        return BlobFacts(self.num_bytes, self._hash.hexdigest())

    def abort(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class S3Blobs:
    """Blobs in a bucket, ``s3://bucket/prefix``. Address and keys come from the usual AWS_* variables.

    ``AWS_ENDPOINT_URL`` names a server other than Amazon's. Uploads larger than ten MiB go up in parts.
    """

    def __init__(self, url: str):
        try:
            import obstore
            from obstore.store import S3Store
        except ModuleNotFoundError as error:
            raise InvalidRequest(
                "An S3 blob store needs obstore.", param="blob_url", mend="pip install 'tunesmith[s3]'."
            ) from error
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self._obstore: Any = obstore
        self._store: Any = S3Store.from_url(url, client_options={"allow_http": endpoint.startswith("http://")})

    def open_writer(self) -> "S3BlobWriter":
        return S3BlobWriter(self._obstore, self._store, "incoming/" + secrets.token_hex(16))

    def open(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        size = self.size(key)
        last = size if end is None else min(end, size)
        if start >= last:
            return iter(())
        return self._stream(key) if (start, last) == (0, size) else self._stream_range(key, start, last)

    def size(self, key: str) -> int:
        try:
            return int(self._obstore.head(self._store, _checked(key))["size"])
        except FileNotFoundError:
            raise _no_blob(key) from None

    def path(self, key: str) -> Path | None:
        return None

    def fetch(self, key: str, to: Path) -> None:
        _write_whole(to, self.open(key))

    def delete(self, key: str) -> None:
        _delete_object(self._obstore, self._store, _checked(key))

    def _stream(self, key: str) -> Iterator[bytes]:
        for chunk in self._obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)

    def _stream_range(self, key: str, start: int, end: int) -> Iterator[bytes]:
        try:
            reply = self._obstore.get(self._store, key, options={"range": (start, end)})
        except self._obstore.exceptions.GenericError:
            # Some servers (rclone) send a range with status 200, which obstore refuses: read all and cut.
            return _cut(self._stream(key), start, end)
        return (bytes(chunk) for chunk in reply.stream(min_chunk_size=CHUNK_BYTES))


class S3BlobWriter:
    """Uploads under a temporary key; ``commit`` copies to the final one inside the store."""

    def __init__(self, obstore: Any, store: Any, temporary: str):
        self._obstore = obstore
        self._store = store
        self._temporary = temporary
        self._file = obstore.open_writer(store, temporary)
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.num_bytes += len(data)

    def commit(self, key: str) -> BlobFacts:
        self._file.close()
        self._obstore.copy(self._store, self._temporary, _checked(key))
        _delete_object(self._obstore, self._store, self._temporary)
        return BlobFacts(self.num_bytes, self._hash.hexdigest())

    def abort(self) -> None:
        # Closing completes the upload, so that no parts of it stay behind in the bucket.
        self._file.close()
        _delete_object(self._obstore, self._store, self._temporary)


def _delete_object(obstore: Any, store: Any, key: str) -> None:
    try:
        obstore.delete(store, key)
    except FileNotFoundError:
        return


def _checked(key: str) -> str:
    if not key or "/" in key or key.startswith(".") or key == "incoming":
        raise _no_blob(key)
    return key


def _no_blob(key: str) -> NotFound:
    return NotFound(f"There are no bytes under {key}.", code="blob_not_found")


def _read_range(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        left = (path.stat().st_size if end is None else end) - start
        while left > 0 and (data := file.read(min(CHUNK_BYTES, left))):
            left -= len(data)
            yield data


def _cut(pieces: Iterator[bytes], start: int, end: int) -> Iterator[bytes]:
    position = 0
    for piece in pieces:
        yield piece[max(start - position, 0) : max(end - position, 0)]
        position += len(piece)
        if position >= end:
            return


def _write_whole(to: Path, pieces: Iterator[bytes]) -> None:
    temporary = to.with_name(f"{to.name}.{secrets.token_hex(4)}.tmp")
    with temporary.open("xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(to)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

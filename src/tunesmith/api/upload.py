"""An uploaded form, read as it arrives: the file's bytes go straight to the blob store, nothing is held in memory.

Starlette's own form reader would first copy the whole file into a temporary one.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from tunesmith.core.errors import InvalidRequest, TooLarge
from tunesmith.store.blobs import BlobFacts, BlobStore, BlobWriter

MAX_FIELD_BYTES = 64 * 2**10
FIRST_LINE_BYTES = 16 * 2**20
"""A first line longer than this is not looked at here; the job's own check reads every line."""
BATCH_BYTES = 2**20
"""Bytes gathered before a thread parses, hashes and writes them: few switches, little memory."""


class UploadedForm:
    """A form with one file. ``commit`` keeps the file, ``abort`` forgets it; exactly one of them ends it."""

    def __init__(self, blobs: BlobStore, max_file_bytes: int):
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.first_line = FirstLine()
        self._blobs = blobs
        self._max_file_bytes = max_file_bytes
        self._writer: BlobWriter | None = None
        self._part = _Part()

    @property
    def num_bytes(self) -> int:
        return self._writer.num_bytes if self._writer else 0

    def commit(self, key: str) -> BlobFacts:
        assert self._writer is not None, "a form without a file is refused before"
        return self._writer.commit(key)

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()

    async def read(self, request: Request) -> None:
        """Take in the request's body. Raises InvalidRequest for a broken form, TooLarge for too big a file."""
        parser = MultipartParser(_boundary(request), self._callbacks())
        try:
            async for batch in _batches(request.stream()):
                await run_in_threadpool(parser.write, batch)
            parser.finalize()
        except FormParserError as error:
            raise InvalidRequest(f"The multipart form could not be read: {error}.") from None

    def _callbacks(self) -> Any:  # the parser's own type of its callbacks is not public
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
        }

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._part.end_header()

    def _on_headers_finished(self) -> None:
        if self._part.filename is None:
            return
        if self._part.name != "file" or self._writer is not None:
            raise InvalidRequest("Send exactly one file, in the form field 'file'.", param="file")
        self.filename = self._part.filename
        self._writer = self._blobs.open_writer()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.filename is None:
            self._part.add_text(data[start:end])
            return
        assert self._writer is not None
        if self._writer.num_bytes + end - start > self._max_file_bytes:
            raise TooLarge(
                f"The file is larger than {self._max_file_bytes:,} bytes, the most this server accepts.",
                code="file_too_large",
                param="file",
                mend="Send a smaller file, or raise TUNESMITH_MAX_FILE_BYTES.",
            )
        self._writer.write(data[start:end])
        self.first_line.feed(data, start, end)

    def _on_part_end(self) -> None:
        if self._part.filename is None:
            self.fields[self._part.name] = self._part.text.decode("utf-8", "replace")


class _Part:
    """One part of the form while it is read."""

    def __init__(self) -> None:
        self.name = ""
        self.filename: str | None = None
        self.header_name = b""
        self.header_value = b""
        self.text = b""

    def end_header(self) -> None:
        if self.header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self.header_value)
            self.name = options.get(b"name", b"").decode("utf-8", "replace")
            filename = options.get(b"filename")
            self.filename = None if filename is None else filename.decode("utf-8", "replace")
        self.header_name = self.header_value = b""

    def add_text(self, data: bytes) -> None:
        self.text += data
        if len(self.text) > MAX_FIELD_BYTES:
            raise InvalidRequest(f"The form field {self.name!r} is too long.", param=self.name)


class FirstLine:
    """The first line of a file that is not blank, gathered while the file passes, without its byte order mark."""

    def __init__(self) -> None:
        self.number = 1
        self._line = bytearray()
        self._is_complete = False

    def feed(self, data: bytes, start: int, end: int) -> None:
        while not self._is_complete and start < end:
            newline = data.find(b"\n", start, end)
            stop = end if newline < 0 else newline
            self._line += data[start:stop]
            self._is_complete = len(self._line) > FIRST_LINE_BYTES or (newline >= 0 and bool(self.text.strip()))
            if newline >= 0 and not self._is_complete:
                self._line.clear()
                self.number += 1
            start = stop + 1

    @property
    def text(self) -> bytes:
        return bytes(self._line).removeprefix(b"\xef\xbb\xbf")

    def require_object(self) -> None:
        """Raises InvalidRequest, in OpenAI's words, unless the line is a JSON object."""
        if len(self._line) > FIRST_LINE_BYTES:
            return
        try:
            is_object = isinstance(json.loads(self.text.decode("utf-8")), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            shown = json.dumps(self.text[:6].decode("utf-8", "replace"), ensure_ascii=False)[1:-1]
            raise InvalidRequest(
                "Expected file to have JSONL format, where every line is a JSON dictionary. "
                f'Line {self.number} is not a dictionary (HINT: line starts with: "{shown}...").'
            )


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("Send the file as multipart/form-data, with the fields 'purpose' and 'file'.")
    return boundary


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    batch = bytearray()
    async for chunk in chunks:
        batch += chunk
        if len(batch) >= BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    yield bytes(batch)

"""One HTTP/1.1 request to an engine on the loopback interface.

An engine needs little: one POST, a connection of its own, an answer in chunks or of a known length. A general client
does far more for every event of a stream, and every token pays. Not covered: TLS, redirects, proxies, compression.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx

CONNECT_TIMEOUT_S = 5.0
MAX_HEAD_BYTES = 2**16


class EngineResponse:
    """``status`` is known; the body comes while it is read."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]):
        self.status = status
        self._reader = reader
        self._headers = headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ``httpx.ReadError`` when the connection breaks before its end."""
        try:
            if self._headers.get("transfer-encoding", "").lower() == "chunked":
                async for piece in self._chunks():
                    yield piece
            else:
                yield await self._reader.readexactly(int(self._headers.get("content-length", "0")))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise httpx.ReadError(f"the answer broke off ({type(error).__name__})") from error

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def _chunks(self) -> AsyncIterator[bytes]:
        while num_bytes := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            piece = await self._reader.readexactly(num_bytes + 2)
            yield piece[:-2]


@asynccontextmanager
async def posted(url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[EngineResponse]:
    """POST ``body`` and wait for the answer's head, however long that takes. Leaving the block drops the connection.

    Raises ``httpx.ConnectError`` or ``httpx.ReadError``, which a lease turns into ``Unavailable``.
    """
    address = urlsplit(url)
    try:
        connecting = asyncio.open_connection(address.hostname, address.port, limit=MAX_HEAD_BYTES)
        reader, writer = await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        raise httpx.ConnectError(f"no connection ({error or type(error).__name__})") from error
    try:
        writer.write(_head(address.path, address.netloc, headers, len(body)) + body)
        yield await _answered(reader)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def _head(path: str, host: str, headers: Mapping[str, str], num_bytes: int) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Connection: close", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {num_bytes}", "", ""]).encode("ascii")


async def _answered(reader: asyncio.StreamReader) -> EngineResponse:
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise httpx.ReadError(f"no answer ({type(error).__name__})") from error
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return EngineResponse(reader, int(first.split(" ")[1]), headers)

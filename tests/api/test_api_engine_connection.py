"""The connection to an engine, against real sockets: how an answer may arrive, and how it may break."""

import asyncio

import httpx
import pytest

from tunesmith.api.chat.connection import posted


def ask(*pieces: bytes, leave_early: bool = False) -> tuple[int, bytes, bytes]:
    """Post to a server that answers with these bytes; (status, body, what the server read)."""

    async def run() -> tuple[int, bytes, bytes]:
        received = asyncio.get_running_loop().create_future()
        gone = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            received.set_result(head + await reader.readexactly(4))
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            if leave_early:
                assert await reader.read() == b""
                gone.set()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with posted(f"http://127.0.0.1:{port}/v1/x", {"Authorization": "Bearer k"}, b"body") as response:
                body = b"" if leave_early else await response.body()
            if leave_early:
                await asyncio.wait_for(gone.wait(), 10)
        return response.status, body, await received

    return asyncio.run(run())


def test_an_answer_in_chunks() -> None:
    status, body, request = ask(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ch",
        b"unked\r\n\r\n3\r\nab",
        b"c\r\n",
        b"A;x=1\r\n0123456789\r\n0\r\n\r\n",
    )
    assert (status, body) == (200, b"abc0123456789")
    head = request.decode()
    assert head.startswith("POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "\r\nAuthorization: Bearer k\r\n" in head
    assert head.endswith("\r\nContent-Length: 4\r\n\r\nbody")


def test_an_answer_of_known_length() -> None:
    assert ask(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}")[:2] == (400, b"{}")


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTTP/1.1 200"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"],
    ],
)
def test_a_connection_that_breaks(pieces: list[bytes]) -> None:
    with pytest.raises(httpx.ReadError):
        ask(*pieces)


def test_nobody_listens() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        async with posted(f"http://127.0.0.1:{port}/", {}, b""):
            pass

    with pytest.raises(httpx.ConnectError):
        asyncio.run(run())


def test_leaving_early_drops_the_connection() -> None:
    assert ask(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", leave_early=True)[0] == 200

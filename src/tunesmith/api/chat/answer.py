"""The response to a chat request: whole, or token by token. A bare ASGI response: what it costs, every token pays.

The engine is leased while the answer is sent. When the client hangs up, the calls to the engine are cancelled, and with
their connections closed the engine stops its work.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunesmith.api.chat.call import opened_stream
from tunesmith.api.chat.collect import CollectedChoice, shown_logprobs
from tunesmith.api.chat.payload import engine_payloads
from tunesmith.api.deps import Services
from tunesmith.api.errors import sse_error
from tunesmith.api.wire.chat import ChatCompletion, ChatRequest, Choice, Chunk, ChunkChoice, Usage, sum_usage
from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import TunesmithError
from tunesmith.core.ids import new_id
from tunesmith.serving.engines.base import Engine

FIRST_DELTA = msgspec.Raw(b'{"role":"assistant","content":"","refusal":null}')
Payload = dict[str, Any]
T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class ChatAnswer(Response):
    """Leases the engine, asks it, sends what it says. Making it raises InvalidRequest for what no engine can answer."""

    def __init__(self, services: Services, request: ChatRequest):
        self._services = services
        self._request = request
        self._payloads = engine_payloads(request)
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _unless_disconnected(receive, self._answer(_Outlet(send)))

    async def _answer(self, outlet: "_Outlet") -> None:
        try:
            async with self._services.router.lease(self._request.model) as engine:
                talk = _Talk(self._request, engine, outlet)
                await (talk.stream(self._payloads) if self._request.stream else talk.complete(self._payloads))
        except TunesmithError as error:
            if not outlet.is_started:
                raise
            await outlet.send(sse_error(error), more=False)


class _Outlet:
    """The way back to the client. Once it has started, an error can only be an event of the stream."""

    def __init__(self, send: Send):
        self.is_started = False
        self._send = send

    async def start(self, content_type: bytes, *headers: tuple[bytes, bytes]) -> None:
        self.is_started = True
        all_headers = [(b"content-type", content_type), (b"cache-control", b"no-cache"), *headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": all_headers})

    async def send(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


class _Talk:
    """One request to one engine. The choices run side by side."""

    def __init__(self, request: ChatRequest, engine: Engine, outlet: _Outlet):
        self._request = request
        self._engine = engine
        self._outlet = outlet
        self._id = new_id("chatcmpl-", 29)
        self._created = unix_now_s()

    async def complete(self, payloads: list[Payload]) -> None:
        collected = await _all([self._collect(index, payload) for index, payload in enumerate(payloads)])
        completion = ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._engine.model.name,
            choices=[choice for choice, _ in collected],
            usage=sum_usage([usage for _, usage in collected]),
            system_fingerprint=self._engine.fingerprint,
        )
        body = _encode(completion)
        await self._outlet.start(b"application/json", (b"content-length", str(len(body)).encode()))
        await self._outlet.send(body, more=False)

    async def stream(self, payloads: list[Payload]) -> None:
        """Each event goes out as it comes."""
        usages = await _all([self._relay(index, payload) for index, payload in enumerate(payloads)])
        if self._request.wants_usage:
            await self._send_chunk([], sum_usage(usages))
        await self._outlet.send(b"data: [DONE]\n\n", more=False)

    async def _collect(self, index: int, payload: Payload) -> tuple[Choice, Usage]:
        collected = CollectedChoice(index, self._request)
        async with opened_stream(self._engine, payload) as chunks:
            await collected.take(chunks)
        assert collected.usage is not None, "the stream ends with the usage, or raises"
        return collected.choice, collected.usage

    async def _relay(self, index: int, payload: Payload) -> Usage:
        is_first = True
        async with opened_stream(self._engine, payload) as chunks:
            async for chunk in chunks:
                for piece in chunk.choices:
                    # The engine's first event names the role; OpenAI's also has an empty content.
                    delta = FIRST_DELTA if is_first else piece.delta
                    is_first = False
                    logprobs = shown_logprobs(piece.logprobs, self._request)
                    await self._send_chunk([ChunkChoice(index, delta, logprobs, piece.finish_reason)], None)
        assert chunk.usage is not None, "the stream ends with the usage, or raises"
        return chunk.usage

    async def _send_chunk(self, choices: list[ChunkChoice], usage: Usage | None) -> None:
        chunk = Chunk(
            id=self._id,
            created=self._created,
            model=self._engine.model.name,
            system_fingerprint=self._engine.fingerprint,
            choices=choices,
            usage=usage if self._request.wants_usage else msgspec.UNSET,
        )
        if not self._outlet.is_started:
            await self._outlet.start(b"text/event-stream; charset=utf-8")
        await self._outlet.send(b"data: " + _encode(chunk) + b"\n\n", more=True)


async def _all(calls: list[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. The first failure cancels the other calls and is raised."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _unless_disconnected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, but cancel it when the client hangs up."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnection(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

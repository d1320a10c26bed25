"""Talking to an engine: one streamed HTTP request for each choice, errors in our own family.

Whole answers are streamed from the engine too: it notices only at a token of a stream that nobody listens any more.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from tunesmith.api.wire.chat import EngineChunk
from tunesmith.core.errors import InvalidRequest, TunesmithError, Unavailable
from tunesmith.serving.engines.base import Engine

PATH = "/v1/chat/completions"


class _Error(msgspec.Struct):
    message: str
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class _ErrorBody(msgspec.Struct):
    error: _Error


_errors = msgspec.json.Decoder(_ErrorBody)
_chunks = msgspec.json.Decoder(EngineChunk)


def engines_http() -> httpx.AsyncClient:
    """The client for all engines. Waits as long as they need: a long answer is no fault, and the caller may leave.

    Every request has its own connection, as docs/reference/engine-llama-cpp.md demands.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=httpx.Timeout(None, connect=5.0), limits=limits, trust_env=False)


@asynccontextmanager
async def opened_stream(
    client: httpx.AsyncClient, engine: Engine, payload: dict[str, Any]
) -> AsyncIterator[AsyncIterator[EngineChunk]]:
    """The engine's chunks as they come, the one with the usage last. Leaving the block stops the engine's work.

    Raises InvalidRequest for what the engine refuses, Unavailable when its answer breaks off.
    """
    body = msgspec.json.encode(payload)
    headers = {**engine.headers, "content-type": "application/json"}
    async with client.stream("POST", engine.base_url + PATH, content=body, headers=headers) as response:
        if response.status_code != 200:
            raise _engine_error(await response.aread())
        yield _chunks_of(response)


async def _chunks_of(response: httpx.Response) -> AsyncIterator[EngineChunk]:
    """Decode each ``data:``. Comments, which only keep the connection alive, are left out."""
    rest = b""
    async for piece in response.aiter_raw():
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            if event.startswith(b'data: {"error"'):
                raise _engine_error(event[6:])
            if event.startswith(b"data: {"):
                chunk = _chunks.decode(event[6:])
                yield chunk
                if chunk.usage is not None:
                    return
    raise _broken("its answer broke off")


def _engine_error(raw: bytes) -> TunesmithError:
    try:
        error = _errors.decode(raw).error
    except msgspec.DecodeError:
        return _broken("it answered with something other than JSON")
    if error.type == "exceed_context_size_error":
        return InvalidRequest(
            f"This model's maximum context length is {error.n_ctx} tokens. However, your messages resulted in "
            f"{error.n_prompt_tokens} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    if error.type == "invalid_request_error":
        return InvalidRequest(f"The engine refused the request: {error.message}", code="engine_refused")
    return _broken(error.message)


def _broken(reason: str) -> Unavailable:
    return Unavailable(f"The engine of this model failed: {reason}.", code="engine_error", mend="Try again.")

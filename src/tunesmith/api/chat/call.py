"""Talking to an engine: one streamed HTTP request for each choice, errors in our own family.

Whole answers are streamed from the engine too: it notices only at a token of a stream that nobody listens any more.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tunesmith.api.chat.connection import EngineResponse, posted
from tunesmith.api.wire.chat import EngineChunk
from tunesmith.core.errors import InvalidRequest, TunesmithError, Unavailable
from tunesmith.serving.engines.base import Engine

PATH = "/v1/chat/completions"
UNREADABLE = ("Failed to parse", "[json.exception.")
"""How the engine begins to complain of a request that it cannot read; its status and type call that its own failure."""


class _Error(msgspec.Struct):
    message: str
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class _ErrorBody(msgspec.Struct):
    error: _Error


class EngineFailure(Unavailable):
    """An engine failed while it answered; ``reason`` is its own word."""

    def __init__(self, reason: str):
        super().__init__(f"The engine of this model failed: {reason}.", code="engine_error", mend="Try again.")
        self.reason = reason


_errors = msgspec.json.Decoder(_ErrorBody)
_chunks = msgspec.json.Decoder(EngineChunk)


@asynccontextmanager
async def opened_stream(engine: Engine, payload: dict[str, Any]) -> AsyncIterator[AsyncIterator[EngineChunk]]:
    """The engine's chunks as they come, the one with the usage last. Leaving the block stops the engine's work.

    Raises InvalidRequest for what the engine refuses, Unavailable when its answer ends too early.
    """
    body = msgspec.json.encode(payload)
    async with posted(engine.base_url + PATH, engine.headers, body) as response:
        if response.status != 200:
            raise _refusal(await response.body())
        yield _chunks_of(response)


async def _chunks_of(response: EngineResponse) -> AsyncIterator[EngineChunk]:
    """Decode each ``data:``. Comments, which only keep the connection alive, are left out."""
    rest = b""
    async for piece in response.pieces():
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            if event.startswith(b'data: {"error"'):
                raise _engine_error(event[6:])
            if event.startswith(b"data: {"):
                chunk = _chunks.decode(event[6:])
                yield chunk
                if chunk.usage is not None:
                    return
    raise EngineFailure("its answer broke off")


def _refusal(raw: bytes) -> TunesmithError:
    """The error instead of a stream. Within one, the same words are about what the model said."""
    error = _engine_error(raw)
    if isinstance(error, EngineFailure) and error.reason.startswith(UNREADABLE):
        return _refused(error.reason)
    return error


def _engine_error(raw: bytes) -> TunesmithError:
    try:
        error = _errors.decode(raw).error
    except msgspec.DecodeError:
        return EngineFailure("it answered with something other than JSON")
    if error.type == "exceed_context_size_error":
        return InvalidRequest(
            f"This model's maximum context length is {error.n_ctx} tokens. However, your messages resulted in "
            f"{error.n_prompt_tokens} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    if error.type == "invalid_request_error":
        return _refused(error.message)
    return EngineFailure(error.message)


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The engine refused the request: {reason}", code="engine_refused")

"""One choice, put together from its stream."""

from collections.abc import AsyncIterator

import msgspec

from tunesmith.api.wire.chat import (
    AnswerFunction,
    AnswerMessage,
    AnswerToolCall,
    ChatRequest,
    Choice,
    EngineChunk,
    FinishReason,
    Logprobs,
    MessageDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

_deltas = msgspec.json.Decoder(MessageDelta)


class CollectedChoice:
    """Takes chunks; ``choice`` is the whole, once the stream has ended."""

    def __init__(self, index: int, request: ChatRequest):
        self.usage: Usage | None = None
        self._index = index
        self._request = request
        self._content: list[str] = []
        self._calls: dict[int, AnswerToolCall] = {}
        self._tokens: list[TokenLogprob] = []
        self._finish_reason: FinishReason = "stop"

    async def take(self, chunks: AsyncIterator[EngineChunk]) -> None:
        async for chunk in chunks:
            self.usage = chunk.usage
            for piece in chunk.choices:
                self._take_delta(_deltas.decode(piece.delta))
                logprobs = shown_logprobs(piece.logprobs, self._request)
                self._tokens += (logprobs.content or []) if logprobs else []
                self._finish_reason = piece.finish_reason or self._finish_reason

    @property
    def choice(self) -> Choice:
        calls = [self._calls[index] for index in sorted(self._calls)]
        content = "".join(self._content)
        message = AnswerMessage(
            content=None if calls and not content else content, tool_calls=calls if calls else msgspec.UNSET
        )
        logprobs = Logprobs(self._tokens) if self._request.logprobs else None
        return Choice(self._index, message, logprobs, self._finish_reason)

    def _take_delta(self, delta: MessageDelta) -> None:
        self._content.append(delta.content or "")
        for piece in delta.tool_calls:
            self._calls[piece.index] = _extended(self._calls.get(piece.index), piece)


def shown_logprobs(logprobs: Logprobs | None, request: ChatRequest) -> Logprobs | None:
    """What was asked for: no more of the likeliest tokens, and no entry for the end of the turn, which has no text."""
    if logprobs is None or not request.logprobs:
        return None
    tokens = [token for token in logprobs.content or [] if token.bytes]
    if not request.top_logprobs:
        tokens = [msgspec.structs.replace(token, top_logprobs=[]) for token in tokens]
    return Logprobs(tokens) if tokens else None


def _extended(call: AnswerToolCall | None, piece: ToolCallDelta) -> AnswerToolCall:
    if call is None:
        return AnswerToolCall(piece.id or "", AnswerFunction(piece.function.name or "", piece.function.arguments))
    arguments = call.function.arguments + piece.function.arguments
    return AnswerToolCall(call.id, AnswerFunction(call.function.name, arguments))

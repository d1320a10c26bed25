"""Chat completions: the request, what an engine answers, and what we make of it.

The request is checked by pydantic like every other. Answers are msgspec structs: one is made for every token of a
stream, and whatever the gateway does not change stays undecoded (``msgspec.Raw``).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import ConfigDict, Field

from tunesmith.api.wire.shape import Metadata, RequestBody, WholeBody

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class FunctionCall(RequestBody):
    """``arguments`` is JSON as text, as a model wrote it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    arguments: str


class ToolCall(RequestBody):
    model_config = ConfigDict(extra="allow", frozen=True)

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ToolFunction(RequestBody):
    """``parameters`` is a JSON schema; a function without it takes no arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(RequestBody):
    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal["function"]
    function: ToolFunction


class Message(RequestBody):
    """One turn. Keys that templates may know and OpenAI does not are passed on."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None


class StreamOptions(RequestBody):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(WholeBody):
    """POST /v1/chat/completions. Numbers must be numbers: OpenAI does not read them from strings either."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[str], Field(max_length=4)] | str | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    # Accepted, as they change nothing here: who asks, and where and how OpenAI would keep and bill it.
    user: str | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    modalities: list[Literal["text"]] | None = None

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def stop_texts(self) -> list[str]:
        """Empty ones are left out: every answer begins with one."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in stop if text]

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(msgspec.Struct, frozen=True):
    """One token of the answer; ``bytes`` are its UTF-8 bytes, ``top_logprobs`` the likeliest tokens at its place."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = []


class Logprobs(msgspec.Struct, frozen=True):
    content: list[TokenLogprob] | None
    refusal: None = None


class TokenDetails(msgspec.Struct, frozen=True):
    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request, counted by the engine."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails = TokenDetails()
    completion_tokens_details: CompletionDetails = CompletionDetails()


def sum_usage(parts: list[Usage]) -> Usage:
    """Usage of several choices for one prompt: the prompt counts once, as with OpenAI."""
    num_completion_tokens = sum(part.completion_tokens for part in parts)
    return Usage(
        prompt_tokens=parts[0].prompt_tokens,
        completion_tokens=num_completion_tokens,
        total_tokens=parts[0].prompt_tokens + num_completion_tokens,
        prompt_tokens_details=parts[0].prompt_tokens_details,
    )


class EngineDelta(msgspec.Struct, frozen=True):
    """One choice in a chunk of an engine's stream."""

    delta: msgspec.Raw
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


class EngineChunk(msgspec.Struct, frozen=True):
    choices: list[EngineDelta]
    usage: Usage | None = None


class FunctionDelta(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str = ""


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A piece of a tool call: the first has its id and name, the rest bring more of its arguments."""

    index: int
    id: str | None = None
    function: FunctionDelta = FunctionDelta()


class MessageDelta(msgspec.Struct, frozen=True):
    """What ``EngineDelta.delta`` holds, for whoever collects a whole answer."""

    content: str | None = None
    tool_calls: list[ToolCallDelta] = []


class AnswerFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class AnswerToolCall(msgspec.Struct, frozen=True):
    id: str
    function: AnswerFunction
    type: Literal["function"] = "function"


class AnswerMessage(msgspec.Struct, frozen=True):
    content: str | None
    tool_calls: list[AnswerToolCall] | UnsetType = UNSET
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    annotations: list[None] = []


class Choice(msgspec.Struct, frozen=True):
    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    service_tier: Literal["default"] = "default"
    system_fingerprint: str


class ChunkChoice(msgspec.Struct, frozen=True):
    index: int
    delta: msgspec.Raw
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream. ``usage`` is there only when asked for: null, and the numbers in the last one."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    service_tier: Literal["default"] = "default"
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET

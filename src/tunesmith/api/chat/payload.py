"""What an engine is sent for a chat request. Roles and contents become what a chat template takes, by the same rules as
for training rows (``data.formats``): a model must be asked in the form in which it was taught."""

from typing import Any

from tunesmith.api.wire.chat import ChatRequest, Message, ToolCall
from tunesmith.core.errors import InvalidRequest

# llama.cpp takes seeds of 32 bits, and the largest of them for "any".
SEEDS = 2**32 - 1
# Penalties count this many of the last tokens. The engine's own word for "the whole context", -1, turns them off.
PENALTY_TOKENS = 2**15
# llama.cpp counts in 32 bits. No context is as long, so that no answer becomes shorter by it.
MOST_TOKENS = 2**30
TEMPLATE_ROLES = {"developer": "system", "function": "tool"}
PASSED_ON = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
)


def engine_payloads(request: ChatRequest) -> list[dict[str, Any]]:
    """The JSON for each choice. Raises InvalidRequest for messages that no chat template takes.

    Every choice is a request of its own: the engine would take no more of them at once than it has places for chats.
    """
    _require_consistent(request)
    common = _common(request)
    if request.seed is None:
        return [common] * request.num_choices
    return [common | {"seed": (request.seed + choice) % SEEDS} for choice in range(request.num_choices)]


def _common(request: ChatRequest) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "messages": [_template_message(message, index) for index, message in enumerate(request.messages)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for name in PASSED_ON:
        value = getattr(request, name)
        if value is not None:
            payload[name] = value
    if request.presence_penalty or request.frequency_penalty:
        payload["repeat_last_n"] = PENALTY_TOKENS
    max_tokens = request.max_completion_tokens or request.max_tokens
    if max_tokens is not None:
        payload["max_tokens"] = min(max_tokens, MOST_TOKENS)
    if request.stop_texts:
        payload["stop"] = request.stop_texts
    if request.tools:
        payload["tools"] = [tool.model_dump(exclude_none=True) for tool in request.tools]
    if request.logprobs:
        # An engine that is asked for none of the likeliest tokens leaves out the chosen one too.
        payload |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs or 0)}
    return payload


def _require_consistent(request: ChatRequest) -> None:
    """Raises InvalidRequest for fields that contradict one another."""
    if request.top_logprobs is not None and not request.logprobs:
        raise _contradiction("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise _contradiction("'stream_options' needs 'stream' to be true.", "stream_options")
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise _contradiction(message, "max_tokens")


def _contradiction(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_parameter_combination")


def _template_message(message: Message, index: int) -> dict[str, Any]:
    out: dict[str, Any] = {
        "role": TEMPLATE_ROLES.get(message.role, message.role),
        "content": _text(message, index),
    }
    calls = list(message.tool_calls or [])
    if message.function_call:
        calls.append(ToolCall(id="call_0", function=message.function_call))
    if calls:
        out["tool_calls"] = [call.model_dump(exclude_none=True) for call in calls]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        out["name"] = message.name
    if message.content is None and not calls:
        raise InvalidRequest(
            f"Invalid value for 'content': expected a string, got null in messages[{index}].",
            param=f"messages[{index}].content",
            code="invalid_type",
        )
    return out


def _text(message: Message, index: int) -> str:
    """The content as one string; text parts stand one after the other."""
    if not isinstance(message.content, list):
        return message.content or ""
    return "".join(_part_text(part, f"messages[{index}].content[{at}]") for at, part in enumerate(message.content))


def _part_text(part: dict[str, Any], where: str) -> str:
    key = "refusal" if part.get("type") == "refusal" else "text"
    text = part.get(key)
    if part.get("type") not in ("text", "refusal") or not isinstance(text, str):
        raise InvalidRequest(
            f"Invalid value for '{where}': this server's models read parts of the type 'text' only.",
            param=where,
            code="invalid_value",
        )
    return text

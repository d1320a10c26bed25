"""What a training row is: the four kinds of wire 3.1, typed. ``formats`` makes them from bytes.

Structs are frozen and outside the garbage collector (``gc=False``): rows come from JSON, which has no cycles.
Not covered: images; a row that has one is refused by the rule ``image_content``.
"""

from typing import Any, Literal, get_args

import msgspec

Kind = Literal["chat", "preference", "reinforcement", "completion"]
"""What a row is for: supervised chat, a preference pair, reinforcement, or the legacy prompt with its completion."""

OTHER_METHODS: dict[Kind | None, str] = {
    "preference": "preference pairs",
    "reinforcement": "prompts for reinforcement",
}
"""Kinds that are checked, and that supervised training has no use for."""

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
ROLES: tuple[Role, ...] = get_args(Role)


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False, tag_field="type", tag="text"):
    text: str


class FunctionCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    role: Role
    content: str | list[TextPart] | None = None
    name: str | None = None
    weight: Literal[0, 1] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None

    def text(self) -> str:
        """The content as one string; parts stand one after the other."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    def is_trained(self) -> bool:
        """Every assistant message is learned unless its weight is 0."""
        return self.role == "assistant" and self.weight != 0


class ChatRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None

    def template_messages(self) -> list[dict[str, Any]]:
        """The messages as a chat template takes them: today's role names, content always a string."""
        return [_template_message(message) for message in self.messages]

    def template_tools(self) -> list[dict[str, Any]] | None:
        if self.functions and not self.tools:
            return [{"type": "function", "function": function} for function in self.functions]
        return self.tools


class PreferenceInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None


class PreferenceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The old names ``preferred_completion`` and ``non_preferred_completion`` are read into these."""

    input: PreferenceInput
    preferred_output: list[Message]
    non_preferred_output: list[Message]


class ReinforcementRow(msgspec.Struct, frozen=True, gc=False):
    """A prompt whose answers are graded. Graders see ``extras`` as ``{{item.key}}``."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None
    extras: dict[str, Any]


class CompletionRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    prompt: str
    completion: str


Row = ChatRow | PreferenceRow | ReinforcementRow | CompletionRow

_KINDS: dict[type[Row], Kind] = {
    ChatRow: "chat",
    PreferenceRow: "preference",
    ReinforcementRow: "reinforcement",
    CompletionRow: "completion",
}


def kind_of(row: Row) -> Kind:
    return _KINDS[type(row)]


def num_messages(row: Row) -> int:
    """Messages of a row; of a preference its prompt's and one output's, of a completion the two texts."""
    match row:
        case ChatRow() | ReinforcementRow():
            return len(row.messages)
        case PreferenceRow():
            return len(row.input.messages) + len(row.preferred_output)
    return 2


Keys = frozenset[str]
"""Top-level keys of a row, without those whose value is null."""

_MESSAGES_ONLY: Keys = frozenset(("messages",))
_CHAT_OPTIONS = ("tools", "parallel_tool_calls", "functions")


def top_level_keys(row: Row) -> Keys:
    """The keys that the row was given, as far as there is a choice."""
    if isinstance(row, ChatRow):
        if row.tools is None and row.parallel_tool_calls is None and row.functions is None:
            return _MESSAGES_ONLY
        return _MESSAGES_ONLY | {name for name in _CHAT_OPTIONS if getattr(row, name) is not None}
    if isinstance(row, ReinforcementRow):
        extras = {key for key, value in row.extras.items() if value is not None}
        return _MESSAGES_ONLY | extras | ({"tools"} if row.tools is not None else set())
    return frozenset(type(row).__struct_fields__)


def conversations(row: Row) -> list[ChatRow]:
    """What is rendered of a row.

    Chat: itself. Preference: the chosen conversation, then the rejected one, only the last answer of each with weight.
    Reinforcement: the prompt, nothing of it to learn. Completion: a question and its answer.
    """
    match row:
        case ChatRow():
            return [row]
        case PreferenceRow():
            return [_preference_chat(row.input, output) for output in (row.preferred_output, row.non_preferred_output)]
        case ReinforcementRow():
            return [ChatRow([_as_context(message) for message in row.messages], tools=row.tools)]
        case CompletionRow():
            return [ChatRow([Message("user", row.prompt), Message("assistant", row.completion)])]


def _preference_chat(given: PreferenceInput, output: list[Message]) -> ChatRow:
    """Preference is trained on the last assistant message only (wire 3.1), whatever its weight."""
    last = max((index for index, message in enumerate(output) if message.role == "assistant"), default=-1)
    messages = [_as_context(message) for message in (*given.messages, *output)]
    if last >= 0:
        messages[len(given.messages) + last] = msgspec.structs.replace(output[last], weight=None)
    return ChatRow(messages, tools=given.tools, parallel_tool_calls=given.parallel_tool_calls)


def _as_context(message: Message) -> Message:
    return msgspec.structs.replace(message, weight=0) if message.is_trained() else message


def _template_message(message: Message) -> dict[str, Any]:
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    out: dict[str, Any] = {"role": role, "content": message.text()}
    calls = message.tool_calls or []
    if message.function_call is not None:
        calls = [*calls, ToolCall(id="call_0", function=message.function_call)]
    if calls:
        out["tool_calls"] = msgspec.to_builtins(calls)
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        out["name"] = message.name
    return out

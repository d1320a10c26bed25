"""Training rows as they come: one JSON object per line, typed. Source: OpenAI's chat fine-tuning format (wire 3.1).

Decoding is typed and fast (msgspec). A row that does not decode is read again by ``explain``, which is slow and says
where, what and how to mend it. Not covered yet: preference pairs, reinforcement rows, images.
"""

from typing import Any, Literal, NoReturn

import msgspec

from tunesmith.core.errors import DataError

Kind = Literal["chat", "preference", "reinforcement", "completion"]
"""What a row is for: supervised chat, a preference pair, reinforcement, or the legacy prompt with its completion."""

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    text: str


class FunctionCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
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


class ChatRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


_decoder = msgspec.json.Decoder(ChatRow)


def decode_row(raw: bytes, line: int) -> ChatRow:
    """One line of a training file. Raises DataError with line, JSON path and mend."""
    try:
        row = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        explain(raw, line, error)
    _check_conversation(row, line)
    return row


def _check_conversation(row: ChatRow, line: int) -> None:
    if not row.messages:
        raise DataError(
            "messages is empty.",
            line=line,
            json_path="$.messages",
            mend="Give at least one user and one assistant message.",
        )
    if all(message.role != "assistant" for message in row.messages):
        raise DataError(
            "There is no assistant message: nothing to learn.",
            line=line,
            json_path="$.messages",
            mend="End the conversation with the answer you want.",
        )
    last = len(row.messages) - 1
    if row.messages[last].role != "assistant":
        raise DataError(
            f"The last message is from {row.messages[last].role!r}, not from the assistant.",
            line=line,
            json_path=f"$.messages[{last}].role",
            mend="End the conversation with the answer you want.",
        )
    if not any(message.is_trained() for message in row.messages):
        raise DataError(
            "Every assistant message has weight 0: nothing to learn.",
            line=line,
            json_path="$.messages",
            mend="Remove the weight of the answer you want, or the row.",
        )
    for index, message in enumerate(row.messages):
        path = f"$.messages[{index}]"
        if message.weight is not None and message.role != "assistant":
            raise DataError(
                "weight stands on a message that is not from the assistant.",
                line=line,
                json_path=f"{path}.weight",
                mend="Remove it.",
            )
        if message.content is None and not (
            message.role == "assistant" and (message.tool_calls or message.function_call)
        ):
            raise DataError(
                "The message has no content.",
                line=line,
                json_path=f"{path}.content",
                mend="Give content, or a tool call for an assistant message.",
            )
        if message.is_trained() and not message.text() and not (message.tool_calls or message.function_call):
            raise DataError(
                "The assistant message is empty.",
                line=line,
                json_path=f"{path}.content",
                mend="Give the answer, or set weight 0.",
            )


def explain(raw: bytes, line: int, error: Exception) -> NoReturn:
    """Say what is wrong with a row that did not decode. Always raises DataError."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise DataError(f"Byte {bad.start + 1} is not UTF-8.", line=line, mend="Save the file as UTF-8.") from None
    try:
        row = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as bad:
        raise DataError(
            f"Not valid JSON: {bad}.", line=line, mend="Each line must be one complete JSON object."
        ) from None
    if not isinstance(row, dict):
        raise DataError(
            f"The line is not a JSON object but {_kind(row)}.",
            line=line,
            json_path="$",
            mend='Each line must look like {"messages": [...]}.',
        )
    if "messages" not in row:
        keys = ", ".join(sorted(row)) or "none"
        raise DataError(
            f'"messages" is missing (keys found: {keys}).',
            line=line,
            json_path="$",
            mend='Each line must look like {"messages": [...]}.',
        )
    _explain_keys(row, line)
    _explain_messages(row["messages"], line)
    raise DataError(f"{error}.", line=line) from None


def _explain_keys(row: dict[str, Any], line: int) -> None:
    extra = sorted(set(row) - {field.name for field in msgspec.structs.fields(ChatRow)})
    if extra:
        raise DataError(
            f'Contains an extra "{extra[0]}".', line=line, json_path=f"$.{extra[0]}", mend="Remove the key."
        )


def _explain_messages(messages: object, line: int) -> None:
    if not isinstance(messages, list):
        raise DataError(f'"messages" is {_kind(messages)}, not a list.', line=line, json_path="$.messages")
    for index, message in enumerate(messages):
        path = f"$.messages[{index}]"
        if not isinstance(message, dict):
            raise DataError(f"The message is {_kind(message)}, not an object.", line=line, json_path=path)
        if message.get("role") not in ROLES:
            raise DataError(
                f"The role is {message.get('role')!r}.",
                line=line,
                json_path=f"{path}.role",
                mend=f"Use one of {', '.join(ROLES)}.",
            )
        extra = sorted(set(message) - {field.name for field in msgspec.structs.fields(Message)})
        if extra:
            raise DataError(
                f'Contains an extra "{extra[0]}".', line=line, json_path=f"{path}.{extra[0]}", mend="Remove the key."
            )
        try:
            msgspec.convert(message, Message)
        except msgspec.ValidationError as bad:
            inner = str(bad).partition(" - at `$")
            raise DataError(f"{inner[0]}.", line=line, json_path=path + inner[2].rstrip("`")) from None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")

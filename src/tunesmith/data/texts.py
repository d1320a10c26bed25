"""Where messages and texts stand in a row of any kind, also in a row that is wrong: for what changes rows.

Works on plain JSON values. What is not where it should be is passed over, never an error.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

MESSAGE_LISTS = (
    ("messages",),
    ("input", "messages"),
    ("preferred_output",),
    ("non_preferred_output",),
    ("preferred_completion",),
    ("non_preferred_completion",),
)
PLAIN_TEXTS = ("prompt", "completion")


class Place(msgspec.Struct, frozen=True):
    """A string in a row: ``holder[key]``, a message's own or a part's."""

    json_path: str
    holder: dict[str, Any]
    key: str
    is_first: bool = True
    """Whether the message's text begins here; a content of several parts is one text."""
    is_last: bool = True

    @property
    def text(self) -> str:
        text: str = self.holder[self.key]
        return text


def roles(row: object) -> Iterator[Place]:
    """The role of every message that has one."""
    for path, message in _messages(row):
        if isinstance(message.get("role"), str):
            yield Place(f"{path}.role", message, "role")


def texts(row: object) -> Iterator[Place]:
    """Every text that a model reads or learns: contents, their text parts, prompts, completions."""
    for path, message in _messages(row):
        yield from _contents(path, message)
    if isinstance(row, dict):
        for key in PLAIN_TEXTS:
            if isinstance(row.get(key), str):
                yield Place(f"$.{key}", row, key)


def arguments(row: object) -> Iterator[Place]:
    """The arguments of every tool call: JSON in a string."""
    for path, message in _messages(row):
        calls = message.get("tool_calls")
        places = [(f"{path}.function_call", message.get("function_call"))]
        for index, call in enumerate(calls if isinstance(calls, list) else []):
            places.append((f"{path}.tool_calls[{index}].function", call.get("function") if _is_object(call) else None))
        for where, function in places:
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                yield Place(f"{where}.arguments", function, "arguments")


def _contents(path: str, message: dict[str, Any]) -> Iterator[Place]:
    content = message.get("content")
    if isinstance(content, str):
        yield Place(f"{path}.content", message, "content")
    elif isinstance(content, list):
        last = len(content) - 1
        for index, part in enumerate(content):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield Place(f"{path}.content[{index}].text", part, "text", index == 0, index == last)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _messages(row: object) -> Iterator[tuple[str, dict[str, Any]]]:
    for keys in MESSAGE_LISTS:
        value = row
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        for index, message in enumerate(value if isinstance(value, list) else []):
            if isinstance(message, dict):
                yield f"$.{'.'.join(keys)}[{index}]", message

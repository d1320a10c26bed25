"""Where messages and texts stand in a row of any kind, also in a row that is wrong: for what changes rows.

Works on plain JSON values. What is not where it should be is passed over, never an error.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from tunesmith.data.notes import member

MESSAGE_LISTS = (
    ("messages",),
    ("input", "messages"),
    ("preferred_output",),
    ("non_preferred_output",),
    ("preferred_completion",),
    ("non_preferred_completion",),
)
PLAIN_TEXTS = ("prompt", "completion")
_WIRE_KEYS = frozenset((*(keys[0] for keys in MESSAGE_LISTS), "tools", "functions"))
"""Whose value has a form of its own; every other key is its owner's, as those that graders read."""
_FIXED_KEYS = frozenset(("role", "type", "id", "tool_call_id"))
_FUNCTIONS = frozenset(("function", "function_call", "functions"))


class Place(msgspec.Struct, frozen=True):
    """A string in a row: ``holder[key]``, where the holder is an object or a list."""

    json_path: str
    holder: Any
    key: str | int
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


def strings(row: object) -> Iterator[Place]:
    """Every string that may tell of somebody, wherever it stands: contents, names, refusals, arguments and results of
    calls, descriptions, and all under keys of the row's owner. Not keys, nor what the form fixes: roles, types, ids and
    names of functions."""
    if isinstance(row, dict):
        for key, value in row.items():
            if isinstance(value, str):
                yield Place(member("$", key), row, key)
            else:
                yield from _strings(value, member("$", key), key if key in _WIRE_KEYS else None)
    else:
        yield from _strings(row, "$", None)


def holders(value: object) -> Iterator[tuple[int, str | int]]:
    """(identity of the holder, key) of every string value whatever it is, in the order in which JSON writes them."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        if isinstance(inner, str):
            yield id(value), key
        elif isinstance(inner, dict | list):
            yield from holders(inner)


def _strings(value: object, path: str, parent: str | None) -> Iterator[Place]:
    """``parent`` is the key under which ``value`` stands; None where no key has a meaning."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str):
                is_fixed = key in _FIXED_KEYS or (key == "name" and parent in _FUNCTIONS)
                if parent is None or not is_fixed:
                    yield Place(member(path, key), value, key)
            elif isinstance(inner, dict | list):
                yield from _strings(inner, member(path, key), None if parent is None else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, str):
                yield Place(f"{path}[{index}]", value, index)
            elif isinstance(inner, dict | list):
                yield from _strings(inner, f"{path}[{index}]", parent)


def _contents(path: str, message: dict[str, Any]) -> Iterator[Place]:
    content = message.get("content")
    if isinstance(content, str):
        yield Place(f"{path}.content", message, "content")
    elif isinstance(content, list):
        last = len(content) - 1
        for index, part in enumerate(content):
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield Place(f"{path}.content[{index}].text", part, "text", index == 0, index == last)


def _messages(row: object) -> Iterator[tuple[str, dict[str, Any]]]:
    for keys in MESSAGE_LISTS:
        value = row
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        for index, message in enumerate(value if isinstance(value, list) else []):
            if isinstance(message, dict):
                yield f"$.{'.'.join(keys)}[{index}]", message

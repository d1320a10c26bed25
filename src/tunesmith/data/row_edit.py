"""Changing a row's texts and leaving everything else as it was written, down to its spaces and escapes."""

import json
import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NoReturn

import msgspec

from tunesmith.data.texts import Place, roles, texts

Change = Callable[[str], str]
"""A text's new form; the same text where there is nothing to do."""


class Edit(msgspec.Struct, frozen=True):
    """One string that a fix changed."""

    json_path: str
    before: str
    after: str


_decoder = msgspec.json.Decoder()
_NORMAL_ROLE = {
    **dict.fromkeys(("system", "developer", "user", "assistant", "tool", "function")),
    **dict.fromkeys(("ai", "bot", "chatbot", "chatgpt", "gpt", "model"), "assistant"),
    **dict.fromkeys(("human", "prompter"), "user"),
}
"""Lower-case name -> the name to use; None: itself."""


def strip_text(text: str) -> str:
    """Without white space at its ends; a text of nothing else stays, for a person to look at."""
    return text.strip() or text


def normal_role(role: str) -> str:
    """OpenAI's name for a role that other programs call otherwise or write in capitals; unknown ones stay."""
    name = role.strip().lower()
    return (_NORMAL_ROLE[name] or name) if name in _NORMAL_ROLE else role


def edit_texts(body: bytes, change: Change) -> tuple[bytes, list[Edit]]:
    """``body`` (one row without line end) with every text changed by ``change``, and what changed."""
    return _edit(body, texts, change)


def edit_roles(body: bytes) -> tuple[bytes, list[Edit]]:
    """``body`` with the roles of its messages normalised, and what changed."""
    return _edit(body, roles, normal_role)


def _edit(body: bytes, places: Callable[[object], Iterator[Place]], change: Change) -> tuple[bytes, list[Edit]]:
    try:
        if all(change(place.text) == place.text for place in places(_decoder.decode(body))):
            return body, []
        row = _read_strictly(body)
    except (ValueError, RecursionError):  # what cannot be read without a loss is not written
        return body, []
    write = _style(body, row)
    edits = []
    for place in places(row):
        before, after = place.text, change(place.text)
        if after != before:
            place.holder[place.key] = after
            edits.append(Edit(place.json_path, before, after))
    return write(row), edits


def _style(body: bytes, row: Any) -> Callable[[Any], bytes]:
    """How ``body`` was written, where Python's json can write so; else the nearest to it."""
    for ascii_only, separators in product((False, True), ((", ", ": "), (",", ":"))):
        write = _writer(ascii_only, separators)
        if write(row) == body:
            return write
    return _writer(body.isascii() or b"\\u" in body, (", ", ": ") if b'": ' in body else (",", ":"))


def _writer(ascii_only: bool, separators: tuple[str, str]) -> Callable[[Any], bytes]:
    def write(row: Any) -> bytes:
        return json.dumps(row, ensure_ascii=ascii_only, separators=separators).encode()

    return write


def _read_strictly(body: bytes) -> Any:
    """Raises ValueError for what would be lost or changed when written again: a key given twice, NaN, infinity."""
    return json.loads(
        body.decode(), object_pairs_hook=_without_repeats, parse_constant=_refuse, parse_float=_finite_float
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _finite_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")

"""One line as JSON: what a strict parser refuses is said with its place; what it would let pass is found.

msgspec refuses all that RFC 8259 refuses and keeps the last of duplicate keys. Here a tolerant parser reads what
msgspec refused, so that NaN, half surrogates and numbers too large get their JSON path, all of them at once.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from tunesmith.data.notes import RowNotes, member

BOM = b"\xef\xbb\xbf"
MAX_DEPTH = 100
"""Nesting of objects and lists. Chat rows need about ten; parsers and templates recurse and end at about a thousand."""
TOO_DEEP = f"Objects and lists are nested more than {MAX_DEPTH} deep."
_MAX_DIGITS = 308
_FIRST_STEPS = re.compile(r'\$(\.\w+|\[\d+\]|\["[^"]*"\]){0,3}')
_HALF_SURROGATE = re.compile("[\ud800-\udfff]")


class _Object(dict[str, Any]):
    """A JSON object that remembers the keys that were given more than once."""

    __slots__ = ("duplicates",)
    duplicates: tuple[str, ...]


class _NotANumber(float):
    """NaN or an infinity, which JSON does not have."""


class _TooLarge(float):
    """A number that no float holds."""


def parse_line(raw: bytes, notes: RowNotes) -> Any:
    """The JSON value of a line, read tolerantly; None when it cannot be read, which is noted.

    A value in which NaN or the like was noted is given back without it, for its other faults to be found.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        notes.add("not_utf8", f"Byte {bad.start + 1} is not UTF-8.")
        return None
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as bad:
        notes.add("invalid_json", _syntax(text, bad))
        return None
    except RecursionError:
        notes.add("deep_nesting", "Not valid JSON for a data set: nested too deeply to read.")
        return None
    is_shallow = _note_values(value, notes)
    return (_mended(value) if notes.has_errors() else value) if is_shallow else None


def note_duplicates(raw: bytes, notes: RowNotes) -> None:
    """Note the keys that stand more than once in one object, which msgspec lets pass. ``raw`` is valid JSON."""
    again = msgspec.json.encode(msgspec.json.decode(raw))
    # As many quotes of every sort, and none written by its code point: then nothing was left out by decoding.
    if raw.count(b'"') == again.count(b'"') and b"\\u0022" not in raw:
        return
    if _num_quotes(raw) != _num_quotes(again):
        parse_line(raw, notes)


def _num_quotes(raw: bytes) -> int:
    """The number of quotes that open or close a string, keys included: exact for valid JSON.

    A duplicate key makes a line have more of them than what was decoded of it.
    """
    if b"\\\\" in raw:  # escaped backslashes, so that what is left before a quote escapes it
        raw = raw.replace(b"\\\\", b"")
    return raw.count(b'"') - raw.count(b'\\"')


def is_deep(value: object) -> bool:
    """Whether lists and objects are nested more than ``MAX_DEPTH`` deep."""
    return isinstance(value, dict | list) and _is_deeper(value, MAX_DEPTH)


def _is_deeper(value: Any, most: int) -> bool:
    """Whether an object or list is nested deeper than ``most``. The recursion is not."""
    if not most:
        return True
    for inner in value.values() if type(value) is dict else value:
        kind = type(inner)
        if (kind is dict or kind is list) and _is_deeper(inner, most - 1):
            return True
    return False


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    given = [key for key, _ in pairs] if len(made) != len(pairs) else []
    made.duplicates = tuple(key for key, count in Counter(given).items() if count > 1)
    return made


def _float(text: str) -> float:
    number = float(text)
    return _TooLarge(0) if number in (float("inf"), float("-inf")) else number


def _int(text: str) -> float:
    return int(text) if len(text) <= _MAX_DIGITS else _TooLarge(0)


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=lambda _: _NotANumber(0)
)


def _walk(value: object) -> Iterator[tuple[object, str, int]]:
    """(value, JSON path, depth) of every value, in order, without recursion. What lies too deep is not entered."""
    levels = [iter([(value, "$")])]
    while levels:
        inner, path = next(levels[-1], (levels, ""))
        if inner is levels:
            levels.pop()
            continue
        is_open = isinstance(inner, dict | list)
        yield inner, path, len(levels) - 1 + is_open
        if is_open and len(levels) <= MAX_DEPTH:
            levels.append(_members(inner, path))


def _members(value: object, path: str) -> Iterator[tuple[object, str]]:
    if isinstance(value, dict):
        return ((inner, member(path, key)) for key, inner in value.items())
    assert isinstance(value, list)
    return ((inner, f"{path}[{index}]") for index, inner in enumerate(value))


def _note_values(value: object, notes: RowNotes) -> bool:
    """Note every value that JSON does not have. False when lists and objects are nested too deep to work with."""
    for inner, path, depth in _walk(value):
        if depth > MAX_DEPTH:
            notes.add("deep_nesting", TOO_DEEP, _outer(path))
            return False
        if isinstance(inner, _Object):
            _note_keys(inner, path, notes)
        elif isinstance(inner, str) and _HALF_SURROGATE.search(inner):
            notes.add("lone_surrogate", "The text has half of a surrogate pair: no character, in any encoding.", path)
        elif isinstance(inner, _NotANumber):
            notes.add("nan_or_infinity", "NaN or Infinity: JSON has no such number.", path)
        elif isinstance(inner, _TooLarge):
            notes.add("huge_number", "The number is larger than computers hold.", path)
    return True


def _outer(path: str) -> str:
    """The first few steps of a path: the rest of a hundred says nothing."""
    found = _FIRST_STEPS.match(path)
    return found.group() if found else "$"


def _mended(value: Any) -> Any:
    """The value with plain numbers and characters in the place of those that were noted."""
    if isinstance(value, dict):
        return {_mended(key): _mended(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mended(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return 1 if isinstance(value, _NotANumber | _TooLarge) else value  # as a weight it leaves the message learned


def _note_keys(value: _Object, path: str, notes: RowNotes) -> None:
    for key in value.duplicates:
        where = member(path, key)
        notes.add("duplicate_key", "The key stands more than once; only the last would count.", where)
    for key in value:
        if _HALF_SURROGATE.search(key):
            notes.add("lone_surrogate", "A key has half of a surrogate pair.", member(path, key))


def _syntax(text: str, bad: json.JSONDecodeError) -> str:
    """What a person is told of a syntax error: its place, and the usual reason where it shows."""
    said = f"Not valid JSON: {bad.msg.removesuffix(' at')} (column {bad.pos + 1})."
    if text.startswith("\ufeff"):
        return said + " A byte-order mark stands within the file: were two files joined?"
    if text in ("[", "{") or (text[:1] in ("[", "{") and text.endswith(("[", "{"))):
        return said + " The file looks like one JSON document over many lines; a data set is one object per line."
    if bad.msg == "Extra data" and text[bad.pos] == "{":
        return said + " Two objects stand in one line."
    if (text.startswith("{") and bad.pos >= len(text.rstrip()) - 1) or bad.msg.startswith("Unterminated string"):
        return said + " The line seems to be cut off: is there a line break inside the object?"
    return said

"""Changing a row's texts and leaving every other byte as it was written: numbers, white space, order, escapes.

New pieces are put into the row's own bytes, also within a text of which only a piece is new.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator

import msgspec

from tunesmith.data.content.personal import find_maskable, tags_of
from tunesmith.data.foreign import normal_role
from tunesmith.data.json_line import is_deep, note_duplicates
from tunesmith.data.notes import RowNotes
from tunesmith.data.splice import Replacement, spliced, spliced_json
from tunesmith.data.texts import Place, holders, roles, strings, texts

Places = Callable[[object], Iterator[Place]]
Change = Callable[[Place], list[Replacement]]
"""What is new in a place's text, in order; nothing where there is nothing to do."""


class Edit(msgspec.Struct, frozen=True):
    """One string that a fix changed."""

    json_path: str
    before: str
    after: str


Edited = tuple[bytes, list[Edit]]
"""The row and what changed in it."""

_decoder = msgspec.json.Decoder()
_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(\s*+:)?', re.DOTALL)
"""A string in valid JSON; before a colon it is a key."""
_STRING_IN_TEXT = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


def strip_row(body: bytes) -> Edited | None:
    """``body`` (one row without line end) without white space at the ends of its texts, and what changed; None for a
    row that cannot be read: what is no JSON, or has a key twice, a number that nothing holds, a hundred levels.

    A text of nothing else stays, for a person to look at, and so does the one space with which a legacy completion
    begins.
    """
    return _edit(body, texts, _white_space)


def normalise_row(body: bytes) -> Edited | None:
    """``body`` with OpenAI's names for roles that other programs call otherwise or write in capitals; None as above."""
    return _edit(body, roles, _odd_role)


def mask_row(body: bytes) -> Edited | None:
    """``body`` with personal data masked in every string but roles, types, ids and names of functions; None as above.

    A string that is JSON itself, such as a call's arguments, stays JSON.
    """
    return _edit(body, strings, _personal)


def _white_space(place: Place) -> list[Replacement]:
    text = place.text
    start = len(text) - len(text.lstrip()) if place.is_first else 0
    end = len(text.rstrip()) if place.is_last else len(text)
    if place.json_path == "$.completion" and text[:start] == " ":
        start = 0
    if start >= end or not text[start:end].strip():
        return []
    return [Replacement(a, b, "") for a, b in ((0, start), (end, len(text))) if a < b]


def _odd_role(place: Place) -> list[Replacement]:
    name = normal_role(place.text) or place.text
    return [Replacement(0, len(place.text), name)] if name != place.text else []


def _personal(place: Place) -> list[Replacement]:
    tags = tags_of(find_maskable(place.text))
    if tags and _is_json(place.text) and not _is_json(spliced(place.text, tags)):
        return _quoted(tags, place.text)
    return tags


def _quoted(tags: list[Replacement], text: str) -> list[Replacement]:
    """A tag in the place of a number becomes a string."""
    within = [match.span() for match in _STRING_IN_TEXT.finditer(text)]

    def is_within(tag: Replacement) -> bool:
        index = bisect_right(within, (tag.start, len(text))) - 1
        return index >= 0 and tag.start < within[index][1]

    return [tag if is_within(tag) else tag._replace(text=f'"{tag.text}"') for tag in tags]


def _is_json(text: str) -> bool:
    """Whether a text is an object or a list."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _edit(body: bytes, places: Places, change: Change) -> Edited | None:
    row = _read(body)
    if row is None:
        return None
    found = [(place, new) for place in places(row) if (new := change(place))]
    if not found:
        return body, []
    written = (match.span(1) for match in _STRING.finditer(body) if match.group(2) is None)
    spans = dict(zip(holders(row), written, strict=True))
    pieces = sorted((spans[id(place.holder), place.key], new) for place, new in found)
    edits = [Edit(place.json_path, place.text, spliced(place.text, new)) for place, new in found]
    return _written(body, pieces), edits


def _written(body: bytes, pieces: list[tuple[tuple[int, int], list[Replacement]]]) -> bytes:
    """``body`` with other texts in its strings, which are given by their bytes."""
    out: list[bytes] = []
    done = 0
    for (start, end), new in pieces:
        out += (body[done:start], spliced_json(body[start:end].decode(), new).encode())
        done = end
    return b"".join((*out, body[done:]))


def _read(body: bytes) -> dict[str, object] | list[object] | None:
    """The object or list with all its strings in their order; None where some would be missing."""
    try:
        row = _decoder.decode(body)
        if not isinstance(row, dict | list) or is_deep(row):
            return None
        notes = RowNotes(0)
        note_duplicates(body, notes)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return None if notes.has_errors() else row

"""Changing a row's texts and leaving everything else as it was written, down to its spaces and escapes."""

import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import chain, product
from typing import Any, NoReturn

import msgspec

from tunesmith.data.content.personal import mask
from tunesmith.data.foreign import normal_role
from tunesmith.data.texts import Place, arguments, roles, texts

Places = Callable[[object], Iterator[Place]]
Change = Callable[[Place], str]
"""The new form of a place's text; the same text where there is nothing to do."""


class Edit(msgspec.Struct, frozen=True):
    """One string that a fix changed."""

    json_path: str
    before: str
    after: str


_decoder = msgspec.json.Decoder()
_MASKED_NUMBER = re.compile(r"(?<=[:,\[ ])(\[[A-Z]+\])(?=\s*[,\]}])")
"""A mask in the place of a number in JSON."""


def strip_row(body: bytes) -> tuple[bytes, list[Edit]]:
    """``body`` (one row without line end) without white space at the ends of its texts, and what changed.

    A text of nothing else stays, for a person to look at, and so does the one space with which a legacy completion
    begins.
    """
    return _edit(body, texts, _stripped)


def normalise_row(body: bytes) -> tuple[bytes, list[Edit]]:
    """``body`` with OpenAI's names for roles that other programs call otherwise or write in capitals."""
    return _edit(body, roles, _normal_role)


def mask_row(body: bytes) -> tuple[bytes, list[Edit]]:
    """``body`` with personal data masked in texts and in the arguments of calls, which stay JSON."""
    return _edit(body, lambda row: chain(texts(row), arguments(row)), _masked)


def _stripped(place: Place) -> str:
    text = place.text.lstrip() if place.is_first else place.text
    text = text.rstrip() if place.is_last else text
    if place.json_path == "$.completion" and place.text[:1] == " " and text[:1] == place.text[1:2]:
        text = " " + text
    return text if text.strip() else place.text


def _normal_role(place: Place) -> str:
    return normal_role(place.text) or place.text


def _masked(place: Place) -> str:
    text, counts = mask(place.text)
    if counts and place.key == "arguments" and _is_json(place.text) and not _is_json(text):
        return _MASKED_NUMBER.sub(r'"\1"', text)
    return text


def _is_json(text: str) -> bool:
    try:
        _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _edit(body: bytes, places: Places, change: Change) -> tuple[bytes, list[Edit]]:
    try:
        if all(change(place) == place.text for place in places(_decoder.decode(body))):
            return body, []
        row = _read_strictly(body)
    except (ValueError, RecursionError):  # what cannot be read without a loss is not written
        return body, []
    write = _style(body, row)
    edits = []
    for place in places(row):
        before, after = place.text, change(place)
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

"""Replacing pieces of a text, and of a text within JSON, with every other byte left as it was written."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_CHARACTER = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|[^\\]", re.DOTALL)
"""One character of a JSON string as it is written; beyond the first plane it may take two escapes."""


class Replacement(NamedTuple):
    """``text`` in the place of the characters from ``start`` to ``end``."""

    start: int
    end: int
    text: str


def spliced(text: str, replacements: Iterable[Replacement]) -> str:
    """``text`` with the pieces replaced, which stand in order and do not overlap."""
    pieces: list[str] = []
    done = 0
    for start, end, new in replacements:
        pieces += (text[done:start], new)
        done = end
    pieces.append(text[done:])
    return "".join(pieces)


def spliced_json(written: str, replacements: Sequence[Replacement]) -> str:
    """``spliced`` for a text as JSON writes it between its quotes. Places count its characters, not its escapes."""
    encoded = [place._replace(text=json.dumps(place.text)[1:-1]) for place in replacements]
    if "\\" not in written:
        return spliced(written, encoded)
    at = [match.start() for match in _CHARACTER.finditer(written)]
    at.append(len(written))
    return spliced(written, [Replacement(at[start], at[end], new) for start, end, new in encoded])

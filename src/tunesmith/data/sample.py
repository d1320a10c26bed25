"""A few texts from all over a file, to prove on what holds for the rest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

_NUM_PLACES = 64
_MAX_LINE_BYTES = 2**18


def sample_texts(path: Path) -> list[str]:
    """All strings of up to 64 rows, at even distances. Lines that are not JSON, or very long, are passed over."""
    size = path.stat().st_size
    texts: list[str] = []
    with path.open("rb") as file:
        for place in range(_NUM_PLACES):
            file.seek(size * place // _NUM_PLACES)
            if place:
                file.readline(_MAX_LINE_BYTES)
            texts += _strings(file.readline(_MAX_LINE_BYTES))
    return list(dict.fromkeys(texts))


def _strings(raw: bytes) -> Iterator[str]:
    try:
        yield from _inner_strings(msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf")))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return


def _inner_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _inner_strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _inner_strings(inner)

"""Texts that were damaged on their way: wrong encodings, control characters, escapes that were not undone.

Cheap tests of whole texts come first: most texts are clean, and a file has millions.
"""

import re
from collections.abc import Iterator

Complaint = tuple[str, str]
"""(rule, what)"""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
"""Zero width, soft hyphen, change of direction, tags. Not the joiners that scripts and emoji need."""
_MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d"
    "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]{1,3}"
)
"""What the bytes of one UTF-8 character look like when they are read as Windows-1252 or Latin-1."""
_ENTITY = re.compile(r"&(?:amp|nbsp|quot|apos|lt|gt|#\d{2,5}|#x[0-9a-fA-F]{2,5});")
_CONTROL_NAMES = {"\x00": "NUL", "\x08": "backspace", "\x1b": "escape", "\x7f": "delete"}


def damage(text: str) -> Iterator[Complaint]:
    """What is wrong with the characters of a text."""
    if not text.isascii():
        yield from _wrong_encoding(text)
    if not _is_printable(text):
        yield from _unprintable(_MOJIBAKE.sub("", text))
    if "&" in text and ";" in text:
        yield from _entities(text)
    if "\\n" in text and "\n" not in text and text.count("\\n") > 1:
        yield "escaped_line_breaks", f"{text.count(chr(92) + 'n')} line breaks stand as a backslash and an n."


def _is_printable(text: str) -> bool:
    return text.isprintable() or text.replace("\n", "").replace("\t", "").replace("\r", "").isprintable()


def _wrong_encoding(text: str) -> Iterator[Complaint]:
    if "\ufffd" in text:
        yield "replacement_character", f"{text.count(chr(0xFFFD))} characters were lost and stand as U+FFFD."
    found = [match.group() for match in _MOJIBAKE.finditer(text) if _decoded(match.group())]
    if found:
        yield "mojibake", f"{found[0]!r} is {_decoded(found[0])!r} in a wrong encoding ({len(found)} places)."


def _decoded(piece: str) -> str | None:
    """The character that the piece was, or None: then it is what its writer meant."""
    try:
        raw = b"".join(_byte(character) for character in piece)
        text = raw.decode("utf-8")
    except UnicodeError:
        return None
    return text if len(text) == 1 else None


def _byte(character: str) -> bytes:
    return character.encode("latin-1") if ord(character) < 256 else character.encode("cp1252")


def _unprintable(text: str) -> Iterator[Complaint]:
    for rule, pattern in (("control_characters", _CONTROL), ("invisible_characters", _INVISIBLE)):
        found = pattern.findall(text)
        if found:
            name = _CONTROL_NAMES.get(found[0], f"U+{ord(found[0]):04X}")
            yield rule, f"{len(found)} such characters, the first is {name}."


def _entities(text: str) -> Iterator[Complaint]:
    found = _ENTITY.findall(text)
    if found:
        yield "html_entities", f"{len(found)} HTML entities, the first is {found[0]}"

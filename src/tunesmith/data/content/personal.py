"""Personal data and secrets in a text: found, counted, masked.

Precision before recall: a masked order number is damage. What has a check digit is only believed with it (cards: Luhn,
ISO 7812; accounts: ISO 13616, modulo 97). Telephone numbers need a form that nothing else has (+49 ..., (212) 555-0123,
212-555-0123) or a word beside them that says so. Not covered: names, postal addresses, identity numbers other than the
United States' social security number.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tunesmith.data.content.secrets import find_secrets
from tunesmith.data.splice import Replacement, spliced

_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![\w-])"
)
_FILE_ENDINGS = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "py", "js", "ts", "css"})
"""``logo@2x.png`` is a file."""

_CARD = re.compile(
    r"(?<![\w.,$€£+-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{5}|\d{13,19})(?![\w-]|[.,]\d)"
)
_CARD_BEGINNING = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|6(?:011|4[4-9]|5|2)|3(?:0[0-5]|[456789])")
_NOT_A_CARD = re.compile(
    r"(?:order|invoice|tracking|parcel|shipment|ticket|reference|ref|isbn|ean|sku|serial|imei|timestamp|part|case)"
    r"(?:\s+(?:number|no|nr|id|code))?\s*[.:#]*\s*$",
    re.IGNORECASE,
)

_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 "
    "FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 "
    "LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 "
    "SA24 SC31 SE24 SI19 SK24 SM27 SV28 TN24 TR26 UA29 VA22 VG24 XK20 "
)
_IBAN_LENGTH = {pair[:2]: int(pair[2:]) for pair in _IBAN_LENGTHS.split()}

_SSN = re.compile(r"(?<![\w.,$€£-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-]|[.,]\d)")

_PHONE = re.compile(
    r"(?<![\w.,$€£/=#:+-])(?:"
    r"\+[1-9]\d{0,2}(?:[ .-]?\(0?\d{1,4}\))?(?:[ .-]?\d{2,5}){2,5}"  # +49 30 1234567, +1 (212) 555-0123
    r"|(?:1[ .-])?\([2-9]\d{2}\) ?\d{3}[ .-]\d{4}"  # (212) 555-0123
    r"|(?:1[ .-])?[2-9]\d{2}([.-])[2-9]\d{2}\1\d{4}"  # 212-555-0123, 1-800-555-0199
    r")(?![\w-]|[.,/:]\d)"
)
_SAID_PHONE = re.compile(  # every repetition has a bound, or a text of such words would take the square of its length
    r"\b(?:phone|telephone|tel|mobile|cell(?=\W{0,8}(?:phone|number|no|is|:))|fax|whatsapp|hotline"
    r"|call (?:me|us|him|her|them)|text me)\b"
    r"(?:\s{1,32}+(?:on|at|is|under|phone|number|no|nr)){0,4}\s{0,32}+[.:#]{0,4}+\s{0,32}+"
    r"(?P<number>(?:\+|00)?\(?\d(?:[ ()/.-]{0,2}\d){6,14})(?![\w-]|[.,]\d)",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:19|20)\d{2}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)\d{2}")

_DIGITS_ONLY = bytes(byte for byte in range(256) if not 48 <= byte <= 57)
_LEAST_DIGITS = 7
_MAX_ROUNDS = 8


class Span(NamedTuple):
    """One piece of personal data: ``text[start:end]`` is ``kind``."""

    start: int
    end: int
    kind: str


def find_personal(text: str) -> list[Span]:
    """Every piece in order, none over another. Most texts have none: tests of single characters come first."""
    spans = list(find_secrets_as_spans(text))
    if "@" in text:
        spans += _emails(text)
    if _num_digits(text) >= _LEAST_DIGITS:
        for search in (_ibans, _cards, _ssns, _phones):
            spans += search(text)
    return _without_overlaps(spans, len(text)) if spans else spans


def mask(text: str) -> tuple[str, dict[str, int]]:
    """The text with ``[EMAIL]`` and so on in place of each piece, and how many of each kind were replaced.

    Kinds: email, phone, card, iban, ssn, secret. A masked text has none left: masking it again changes nothing.
    """
    spans = find_maskable(text)
    return spliced(text, tags_of(spans)), dict(Counter(span.kind for span in spans))


def find_maskable(text: str) -> list[Span]:
    """What ``mask`` replaces: also what is only found once another piece is masked, such as a number after the word
    that excused it. A text made to hide piece behind piece is looked through ``_MAX_ROUNDS`` times, no more."""
    found: list[Span] = []
    for _ in range(_MAX_ROUNDS):
        more = find_personal(spliced(text, tags_of(found)))
        if not more:
            break
        found = _without_overlaps([*_in_unmasked(more, found), *found], len(text))
    return found


def tags_of(spans: list[Span]) -> list[Replacement]:
    """``[EMAIL]`` and so on in the places of ``spans``."""
    return [Replacement(span.start, span.end, f"[{span.kind.upper()}]") for span in spans]


def _in_unmasked(spans: list[Span], masked: list[Span]) -> list[Span]:
    """Spans of the masked text as spans of the text before it. One that cuts a mask takes all of it."""
    begins: list[int] = []
    longer_by = 0
    for tag in tags_of(masked):
        begins.append(tag.start + longer_by)
        longer_by += len(tag.text) - (tag.end - tag.start)

    def before(position: int, is_end: bool) -> int:
        index = bisect_right(begins, position - is_end) - 1
        if index < 0:
            return position
        start, end, kind = masked[index]
        after_tag = position - begins[index] - len(kind) - 2
        if after_tag - is_end < 0:
            return end if is_end else start
        return end + after_tag

    return [Span(before(start, False), before(end, True), kind) for start, end, kind in spans]


def shown_masked(text: str, span: Span) -> str:
    """Enough to find the piece again, too little to use it: ``j…@….com``, ``…23``, ``sk-…``."""
    piece = text[span.start : span.end]
    if span.kind == "email":
        return f"{piece[0]}…@….{piece.rpartition('.')[2]}"
    return f"{piece[:3]}…" if span.kind == "secret" else f"…{piece[-2:]}"


def find_secrets_as_spans(text: str) -> Iterator[Span]:
    for start, end in find_secrets(text):
        yield Span(start, end, "secret")


def _num_digits(text: str) -> int:
    return len(text.encode("utf-8", "replace").translate(None, _DIGITS_ONLY))


def _without_overlaps(spans: list[Span], num_chars: int) -> list[Span]:
    """Of two that overlap, the earlier found: secrets before addresses, cards before telephones."""
    kept: list[Span] = []
    taken = bytearray(num_chars)
    for span in spans:
        if taken.find(1, span.start, span.end) < 0:
            taken[span.start : span.end] = b"\1" * (span.end - span.start)
            kept.append(span)
    return sorted(kept)


def _matches(pattern: re.Pattern[str], text: str, kind: str, is_real: Callable[[str], bool]) -> Iterator[Span]:
    for match in pattern.finditer(text):
        if is_real(match.group()):
            yield Span(match.start(), match.end(), kind)


def _emails(text: str) -> Iterator[Span]:
    return _matches(_EMAIL, text, "email", lambda found: found.rpartition(".")[2].lower() not in _FILE_ENDINGS)


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        found = _first_characters(match.group(), _IBAN_LENGTH.get(match.group()[:2], 0))
        if found and _is_iban(found):
            yield Span(match.start(), match.start() + len(found), "iban")


def _first_characters(spaced: str, number: int) -> str:
    """The beginning that holds ``number`` characters besides spaces: capitals after an account are not its part."""
    ends = [index + 1 for index, character in enumerate(spaced) if character != " "]
    return spaced[: ends[number - 1]] if 0 < number <= len(ends) else ""


def _ssns(text: str) -> Iterator[Span]:
    return _matches(_SSN, text, "ssn", lambda _: True)


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        if _is_card(match.group()) and not _NOT_A_CARD.search(text, max(0, match.start() - 40), match.start()):
            yield Span(match.start(), match.end(), "card")


def _phones(text: str) -> Iterator[Span]:
    yield from _matches(_PHONE, text, "phone", _is_phone)
    for match in _SAID_PHONE.finditer(text):
        if _is_phone(match.group("number")):
            yield Span(match.start("number"), match.end("number"), "phone")


def _is_phone(found: str) -> bool:
    """7 to 15 digits (ITU-T E.164), no date, no row of one digit."""
    digits = re.sub(r"\D", "", found)
    return _LEAST_DIGITS <= len(digits) <= 15 and len(set(digits)) > 1 and not _DATE.fullmatch(found)


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    return bool(_CARD_BEGINNING.match(digits)) and len(set(digits)) > 1 and _is_luhn(digits)


def _is_luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_iban(found: str) -> bool:
    compact = found.replace(" ", "")
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1

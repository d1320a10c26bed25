"""What one answer shows by itself: cut off, in a loop, a copy of the question, a machine's excuse."""

import re
from collections import Counter
from collections.abc import Iterator

import msgspec

from tunesmith.data.content.damage import Complaint
from tunesmith.data.content.turns import RowView

_LONG_CHARS = 80
"""Shorter answers may end as they like."""
_OPEN_ENDING = re.compile(
    r"(?:[,(\[{]|\b(?:and|or|the|a|an|of|to|with|for|in|is|are|because|that|which|und|der|die|das))$"
)
_ENDING_CHARS = 16
"""More than the longest word of the pattern: a search through a whole answer is slow."""
_LOOP_CHARS = 200
_LOOP_TIMES = 4
_ANCHOR_CHARS = 16
_MAX_DISTANCES = 3
"""Within one repeated piece some words may stand several times, nearer than the piece's length."""
_SELF = re.compile(
    r"\bas an ai(?: language model)?\b|\bi(?:'m| am) (?:just |only )?an? (?:ai|language model)\b", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"(?:i(?:'m| am) (?:very |so )?sorry|sorry|i apologi[sz]e|unfortunately|i(?:'m| am) afraid)\b.{0,80}?"
    r"\b(?:can(?:'|no)t|can not|unable|not able|couldn't|could not|won't|not allowed)"
    r"|i (?:can(?:'|no)t|can not|won't|am unable to|am not able to|must decline)"
    r"|i'm (?:unable|not able) to",
    re.IGNORECASE | re.DOTALL,
)
_JSON_ENDS = {"{": "}", "[": "]"}


def answer_faults(row: RowView) -> Iterator[Complaint]:
    """Faults of the answer of one row, for answers in words."""
    answer = row.answer
    if row.is_call or not answer:
        return
    if len(answer) >= _LONG_CHARS or answer[0] in _JSON_ENDS:
        yield from _cut_off(answer)
    if len(answer) >= _LOOP_CHARS:
        yield from list(_loops(answer)) or _periodic(answer)
    if len(answer) >= 20 and answer.strip().casefold() == row.prompt.strip().casefold():
        yield "answer_repeats_prompt", "The answer is the prompt, word for word."
    if (" AI" in answer or " ai" in answer or "language model" in answer) and _SELF.search(answer):
        yield "speaks_as_an_ai", "The answer speaks of itself as an AI."


def is_refusal(answer: str) -> bool:
    """Whether an answer begins by refusing or excusing itself."""
    return _REFUSAL.match(answer.lstrip().replace("\u2019", "'")[:200]) is not None


def is_json(answer: str) -> bool:
    """Whether the whole answer is a JSON object or list."""
    text = answer.strip()
    if not text or _JSON_ENDS.get(text[0]) != text[-1]:
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _cut_off(answer: str) -> Iterator[Complaint]:
    text = answer.rstrip()
    if text.count("```") % 2:
        yield "cut_off_answer", "A code block (```) is opened and not closed."
    elif text[:2] in ('{"', "[{", '["') and text[-1] != _JSON_ENDS[text[0]] and not is_json(text):
        yield "cut_off_answer", "The answer begins as JSON and does not end as JSON."
    elif len(text) >= _LONG_CHARS and (found := _OPEN_ENDING.search(text[-_ENDING_CHARS:])):
        yield "cut_off_answer", f"The answer ends with {found.group()!r}."


def _loops(answer: str) -> Iterator[Complaint]:
    """The same longer line or sentence again and again, as small models write when they are stuck."""
    pieces = answer.replace(". ", ".\n").replace("! ", "!\n").replace("? ", "?\n").split("\n")
    if len(pieces) - len(set(pieces)) < _LOOP_TIMES - 2:
        return  # the last piece may lack its space
    counted = Counter(piece.strip() for piece in pieces if len(piece) >= 20)
    if not counted:
        return
    piece, times = counted.most_common(1)[0]
    if times >= _LOOP_TIMES and times * len(piece) * 2 >= len(answer):
        share = 100 * times * len(piece) // len(answer)
        yield "repeats_itself", f"One sentence stands {times} times: {share} % of the answer."


def _periodic(answer: str) -> Iterator[Complaint]:
    """A piece of any length that follows itself again and again, whether or not it is a sentence.

    A run that makes up half of the answer passes through its middle, so only the text there is looked for again.
    """
    for start, period in _repeats(answer, len(answer) // 2):
        begin, end = _run(answer, start, period)
        times, length = (end - begin) // period, end - begin
        if times >= _LOOP_TIMES and 2 * length >= len(answer) and not answer[begin:end].isspace():
            piece = "One character" if period == 1 else f"A piece of {period:,} characters"
            share = 100 * length // len(answer)
            yield "repeats_itself", f"{piece} stands {times:,} times in a row: {share} % of the answer."
            return


def _repeats(text: str, middle: int) -> Iterator[tuple[int, int]]:
    """(place, distance) of a few pairs of equal words, one of them beside the middle."""
    for start in (middle, middle - _ANCHOR_CHARS):
        anchor, place = text[start : start + _ANCHOR_CHARS], start
        for _ in range(_MAX_DISTANCES):
            if (place := text.find(anchor, place + 1)) < 0:
                break
            yield start, place - start
        if (place := text.rfind(anchor, 0, start + len(anchor) - 1)) >= 0:
            yield place, start - place


def _run(text: str, start: int, period: int) -> tuple[int, int]:
    """Begin and end of the longest stretch around ``start`` in which every character comes again a period later."""
    on = _num_equal(text[start:], text[start + period :])
    back = _num_equal(text[:start][::-1], text[: start + period][::-1])
    return start - back, start + on + period


def _num_equal(one: str, other: str) -> int:
    """Length of the longest common beginning, by halving."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low

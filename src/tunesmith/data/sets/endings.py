"""What stands at the end or beginning of most answers or prompts, word for word."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tunesmith.data.content.answers import is_json
from tunesmith.data.content.personal import mask
from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.report import Skipped
from tunesmith.data.sets.rule import MANY_ROWS, share
from tunesmith.data.sets.sample import EvenSample

_LIMIT = 5_000
_MOST_CHARS = 80
_SHARE = 0.5
_PIECE = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]+|\n+")
_ODD = frozenset("#!?*=~<>|@%^&+-")
"""Two of them in a row at the end of a text are a mark, not punctuation."""
_ORDINARY = frozenset({"**", "--", "?!", "!?"})

Pieces = tuple[str, ...]


class Endings:
    """Looks at an even sample of answers in words and of prompts."""

    def __init__(self) -> None:
        self._answers: EvenSample[str] = EvenSample(_LIMIT)
        self._prompts: EvenSample[str] = EvenSample(_LIMIT)
        self._heads: EvenSample[str] = EvenSample(_LIMIT)
        self._num_json = 0

    def add(self, row: RowView) -> None:
        if row.answer and not row.is_call:
            self._num_json += self._answers.wants_next() and is_json(row.answer)
            self._answers.add(row.answer.rstrip()[-_MOST_CHARS:])
            self._heads.add(row.answer.lstrip()[:_MOST_CHARS])
        self._prompts.add(row.prompt.rstrip()[-_MOST_CHARS:])

    def findings(self) -> Iterator[Finding]:
        if self._num_json * 2 < len(self._answers.items):
            yield from _findings("recurring_answer_ending", "answers end with", self._answers.items, is_end=True)
            yield from _findings("recurring_answer_beginning", "answers begin with", self._heads.items, is_end=False)
        yield from _findings("recurring_prompt_ending", "prompts end with", self._prompts.items, is_end=True)

    def skipped(self) -> Iterator[Skipped]:
        if not self._prompts.is_whole:
            seen = f"Looked at an even sample of {len(self._prompts.items):,} of {self._prompts.num_seen:,} rows"
            yield Skipped(rule="recurring_answer_ending", reason=f"{seen}, for beginnings and prompts too.")


def _findings(rule: str, does: str, texts: list[str], *, is_end: bool) -> Iterator[Finding]:
    if len(texts) < MANY_ROWS or len(set(texts)) * 2 < len(texts):
        return  # few, or labels: their endings say nothing
    found, number = common_ending([_cut(text, is_end) for text in texts])
    if found:
        text = mask("".join(found if is_end else found[::-1]).strip())[0]
        yield Finding(rule=rule, what=f"{share(number, len(texts))} {does} {text!r}.")


def _cut(text: str, is_end: bool) -> Pieces:
    """Words, marks and line breaks, the outermost last, with a space before each word that has one."""
    pieces = tuple(
        " " * (match.start() > 0 and text[match.start() - 1] == " ") + match.group() for match in _PIECE.finditer(text)
    )
    return pieces if is_end else pieces[::-1]


def common_ending(texts: Sequence[Pieces]) -> tuple[Pieces, int]:
    """The longest ending that at least half of ``texts`` share and how many do; empty when it says nothing."""
    best: Pieces = ()
    support = 0
    for length in range(1, 1 + max(map(len, texts), default=0)):
        ending, number = Counter(text[-length:] for text in texts).most_common(1)[0]
        if number < _SHARE * len(texts) or len(ending) < length:
            break
        best, support = ending, number
    if not _says_something(best):
        return (), 0
    ending = _from_first_word(best)
    return ending, max(support, sum(text[-len(ending) :] == ending for text in texts))


def _from_first_word(ending: Pieces) -> Pieces:
    """Without the punctuation of the sentence before: ``Solution:`` of ``? Solution:``."""
    first = next((place for place, piece in enumerate(ending) if piece.strip()[:1].isalnum()), 0)
    return ending[first:]


def _says_something(ending: Pieces) -> bool:
    """Two pieces with a word among them, or a mark that is no punctuation."""
    pieces = [piece.strip() for piece in ending if piece.strip()]
    has_word = any(piece[0].isalnum() for piece in pieces)
    return (has_word and len(pieces) > 1) or any(_is_mark(piece) for piece in pieces)


def _is_mark(piece: str) -> bool:
    return len(piece) > 1 and piece not in _ORDINARY and set(piece) <= _ODD

"""The languages of a file, told by py3langid where a text is long enough and the answer sure."""

from collections import Counter
from collections.abc import Iterator
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.report import Skipped
from tunesmith.data.sets.rule import MANY_ROWS, share
from tunesmith.data.sets.sample import EvenSample

_LIMIT = 5_000
_LEAST_CHARS = 80
_MOST_CHARS = 600
_LEAST_LETTERS = 0.7
_SURE = 0.99
_MAIN = 0.8
"""With a smaller share for the first language the mixture is the set's nature."""


class Languages:
    """The language of each answer, or of its prompt where the answer is too short to tell."""

    def __init__(self) -> None:
        self._found: EvenSample[tuple[int, str | None]] = EvenSample(_LIMIT)

    def add(self, row: RowView) -> None:
        if self._found.wants_next():
            self._found.add((row.line, _language_of_row(row)))
        else:
            self._found.pass_over()

    def counts(self) -> dict[str, int]:
        """ISO 639-1 code -> rows that are surely in it, most frequent first; of the sampled rows."""
        counted = Counter(language for _, language in self._found.items if language is not None)
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))

    def findings(self) -> Iterator[Finding]:
        counts = self.counts()
        told = sum(counts.values())
        main = next(iter(counts), "")
        if told < MANY_ROWS or counts[main] < _MAIN * told:
            return
        for line, language in self._found.items:
            if language not in (None, main):
                what = f"The text is in {language!r}; {share(counts[main], told)} rows are in {main!r}."
                yield Finding(rule="language_mix", what=what, line=line)

    def skipped(self) -> Iterator[Skipped]:
        if not self._found.is_whole:
            reason = f"Looked at an even sample of {len(self._found.items):,} of {self._found.num_seen:,} rows."
            yield Skipped(rule="language_mix", reason=reason)


def language_of(text: str) -> str | None:
    """The language of a text and of both its halves, or None when it is too short, no prose, mixed or unsure."""
    text = text[:_MOST_CHARS]
    letters = sum(map(str.isalpha, text)) + text.count(" ")
    if len(text) < _LEAST_CHARS or letters < _LEAST_LETTERS * len(text):
        return None
    language, sure = _identifier().classify(text)
    middle = len(text) // 2
    if sure < _SURE or any(_identifier().classify(half)[0] != language for half in (text[:middle], text[middle:])):
        return None
    return str(language)


def _language_of_row(row: RowView) -> str | None:
    if row.is_call:
        return language_of(row.prompt)
    return language_of(row.answer) or (language_of(row.prompt) if len(row.answer) < _LEAST_CHARS else None)


@cache
def _identifier() -> LanguageIdentifier:
    """The model takes 0.4 s to load."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

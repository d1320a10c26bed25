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

_LIMIT = 2_000
_LEAST_CHARS = 80
_MOST_CHARS = 400
_LEAST_LETTERS = 0.7
_SURE = 0.99
_MAIN = 0.8
"""With a smaller share for the first language the mixture is the set's nature."""


class Languages:
    """The language of each answer, or of its prompt where the answer is too short to tell."""

    def __init__(self) -> None:
        self._sample: EvenSample[tuple[int, str]] = EvenSample(_LIMIT)
        self._found: list[tuple[int, str]] = []

    def add(self, row: RowView) -> None:
        self._sample.add((row.line, _prose(row)))

    def findings(self) -> Iterator[Finding]:
        told = [(line, text, language) for line, text in self._sample.items if (language := language_of(text))]
        if not told:
            return
        main = Counter(language for _, _, language in told).most_common(1)[0][0]
        self._found = [(line, code) for line, text, code in told if code == main or _is_throughout(text, code)]
        counts = self.counts()
        if len(self._found) < MANY_ROWS or counts[main] < _MAIN * len(self._found):
            return
        for line, language in self._found:
            if language != main:
                what = f"The text is in {language!r}; {share(counts[main], len(self._found))} rows are in {main!r}."
                yield Finding(rule="language_mix", what=what, line=line)

    def counts(self) -> dict[str, int]:
        """ISO 639-1 code -> sampled rows that are surely in it, most frequent first; known after ``findings``."""
        counted = Counter(language for _, language in self._found)
        return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))

    def skipped(self) -> Iterator[Skipped]:
        if not self._sample.is_whole:
            reason = f"Looked at an even sample of {len(self._sample.items):,} of {self._sample.num_seen:,} rows."
            yield Skipped(rule="language_mix", reason=reason)


def language_of(text: str) -> str | None:
    """The language of a text, or None when it is too short, no prose, or may be another one."""
    letters = sum(map(str.isalpha, text)) + text.count(" ")
    if len(text) < _LEAST_CHARS or letters < _LEAST_LETTERS * len(text):
        return None
    language, sure = _identifier().classify(text)
    return str(language) if sure >= _SURE else None


def _is_throughout(text: str, language: str) -> bool:
    """Whether both halves of a text are in the language: an English answer may quote another one."""
    middle = len(text) // 2
    return all(_identifier().classify(half)[0] == language for half in (text[:middle], text[middle:]))


def _prose(row: RowView) -> str:
    text = row.answer if not row.is_call and len(row.answer) >= _LEAST_CHARS else row.prompt
    return text[:_MOST_CHARS]


@cache
def _identifier() -> LanguageIdentifier:
    """The model takes 0.4 s to load."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

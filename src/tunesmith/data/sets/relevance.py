"""Answers that do not belong to their prompts, measured against the set's own distribution.

Prompts and answers are embedded; a prompt's similarity to its own answer is compared with its similarity to all other
answers. Where a set's pairs are not more alike than shuffled ones (labels, calls, codes) similarity says nothing, and
the rule is skipped. Not covered: an answer on the right subject that is wrong.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.content.turns import RowView
from tunesmith.data.findings import Finding
from tunesmith.data.read import Progress
from tunesmith.data.report import Skipped
from tunesmith.data.sets.rule import MANY_ROWS
from tunesmith.data.sets.sample import EvenSample

Embed = Callable[[list[str]], NDArray[np.float32]]
"""Texts to (number of texts, dimensions), rows of length 1."""

NO_EMBEDDER = "No embedding model is at hand; fetch it with: tunesmith models pull all-minilm-l6-v2."

_RULE = "unrelated_answer"
_LIMIT = 500
"""A sample of 500 takes about ten seconds on a small machine."""
_SLICE = 32
"""Texts embedded at once: about a second."""
_LEAST_PROMPT_CHARS = 20
_LEAST_ANSWER_CHARS = 40
_MOST_CHARS = 500
_RELATED = 0.1
"""The median pair of a related set beats all but this share of shuffled pairs."""
_UNRELATED = 0.3
"""A pair that so many shuffled pairs beat, from the prompt's side and from the answer's, looks shuffled itself."""


class Relevance:
    """Embeds an even sample of the rows that have enough words on both sides."""

    def __init__(self, embed: Embed | None, progress: Progress | None = None):
        """``progress`` is told the texts embedded."""
        self._embed = embed
        self._progress = progress
        self._pairs: EvenSample[tuple[int, str, str]] = EvenSample(_LIMIT)

    def add(self, row: RowView) -> None:
        if not row.is_call and len(row.prompt) >= _LEAST_PROMPT_CHARS and len(row.answer) >= _LEAST_ANSWER_CHARS:
            self._pairs.add((row.line, row.prompt[-_MOST_CHARS:], row.answer[:_MOST_CHARS]))

    def num_texts(self, num_rows: int | None = None) -> int:
        """Texts to embed: of so many rows at most, or of those that were added."""
        if self._embed is None:
            return 0
        if num_rows is None:
            return 2 * len(self._pairs.items) * self._are_many()
        return 2 * min(_LIMIT, num_rows)

    def findings(self) -> Iterator[Finding]:
        pairs = self._pairs.items
        if self._embed is None or not self._are_many():
            return
        own, prompt_rank, answer_rank = self._similarities(pairs)
        if np.median(np.maximum(prompt_rank, answer_rank)) > _RELATED:
            return
        for place in np.flatnonzero(np.minimum(prompt_rank, answer_rank) >= _UNRELATED):
            share = 100 * min(prompt_rank[place], answer_rank[place])
            what = f"{share:.0f} % of the other answers are nearer to this prompt (similarity {own[place]:.2f})."
            yield Finding(rule=_RULE, what=what, line=pairs[place][0])

    def skipped(self) -> Iterator[Skipped]:
        """Not that there was nothing to compare, which nobody can mend."""
        if self._embed is None and self._are_many():
            yield Skipped(rule=_RULE, reason=NO_EMBEDDER)
        elif self._embed is not None and not self._pairs.is_whole:
            seen = f"{len(self._pairs.items):,} of {self._pairs.num_seen:,} rows"
            yield Skipped(rule=_RULE, reason=f"Looked at an even sample of {seen} with words on both sides.")

    def _are_many(self) -> bool:
        return len({answer for _, _, answer in self._pairs.items}) >= MANY_ROWS

    def _similarities(
        self, pairs: list[tuple[int, str, str]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
        """(N,) own similarity; share of other answers nearer to the prompt; share of other prompts nearer to the
        answer."""
        vectors = self._vectors([prompt for _, prompt, _ in pairs] + [answer for _, _, answer in pairs])
        similar = vectors[: len(pairs)] @ vectors[len(pairs) :].T
        own = np.diagonal(similar)
        others = len(pairs) - 1
        prompt_rank = (similar > own[:, None]).sum(axis=1) / others
        answer_rank = (similar > own[None, :]).sum(axis=0) / others
        return own, prompt_rank, answer_rank

    def _vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """In slices of texts of like length, so that one can see how far it is."""
        assert self._embed is not None
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        parts = []
        for start in range(0, len(order), _SLICE):
            rows = order[start : start + _SLICE]
            parts.append(self._embed([texts[row] for row in rows]))
            if self._progress is not None:
                self._progress(start + len(rows), len(order))
        vectors = np.concatenate(parts)
        vectors[order] = vectors.copy()
        return vectors

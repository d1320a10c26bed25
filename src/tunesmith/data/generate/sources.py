"""What a generation starts from, kept whole in ``sources.json``: a file that is deleted later stops no resumed run."""

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tunesmith.core.errors import DataError
from tunesmith.data.formats import ChatRow
from tunesmith.data.generate.documents import MAX_TEXT_CHARS, Passage, read_document
from tunesmith.data.read import read_rows

SOURCES_FILE = "sources.json"
MAX_SEEDS = 10_000
"""Seeds kept as examples; of more, a sample."""
MAX_EXAMPLE_CHARS = 4_000
"""A longer seed is no example: it would be paid for with every call."""


class SeedExample(msgspec.Struct, frozen=True, kw_only=True):
    """The last exchange of a seed row: what was asked, what was answered, under which system prompt."""

    prompt: str
    answer: str
    system: str = ""


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    passages: list[Passage] = []
    seeds: list[SeedExample] = []
    num_seed_rows: int = 0
    """Rows of the seed files, also those that serve as no example."""

    def system_for(self, given: str | None) -> str:
        """The system prompt of every row: the one that is given, else the one that most seeds have, or none."""
        if given is not None:
            return given
        counts = Counter(seed.system for seed in self.seeds)
        return max(counts, key=lambda text: (counts[text], text)) if counts else ""


def read_sources(seed_files: Iterable[Path], documents: Iterable[tuple[Path, str]], seed: int) -> Sources:
    """Read everything once. ``documents`` are paths with the names that tell their kind.

    Raises DataError (param ``seeds``) for a seed row that is wrong, InvalidRequest for a document that is.
    """
    examples, num_rows = _read_seeds(seed_files, random.Random(f"{seed}:seeds"))  # noqa: S311  (a plan, no secret)
    passages: list[Passage] = []
    room_chars = MAX_TEXT_CHARS
    for path, name in documents:
        found = read_document(path, name, room_chars)
        room_chars -= sum(len(passage.text) for passage in found)
        passages += found
    return Sources(passages=passages, seeds=examples, num_seed_rows=num_rows)


def _read_seeds(paths: Iterable[Path], chance: random.Random) -> tuple[list[SeedExample], int]:
    examples, num_rows = _Sample(chance), 0
    for path in paths:
        try:
            for _, row in read_rows(path):
                num_rows += 1
                example = _example(row)
                if example is not None:
                    examples.add(example)
        except DataError as error:
            raise DataError(
                error.message,
                line=error.line,
                json_path=error.json_path,
                code="invalid_seeds",
                param="seeds",
                mend=error.mend,
            ) from None
    if num_rows and not examples.kept:
        raise DataError(
            "No seed row can serve as an example: each ends in a tool call, is very long, or has no user message.",
            code="invalid_seeds",
            param="seeds",
            mend="Give rows that end with a user's message and a written answer.",
        )
    return examples.kept, num_rows


class _Sample:
    """At most ``MAX_SEEDS`` of all that come, each with the same chance (Vitter's algorithm R): files are large."""

    def __init__(self, chance: random.Random):
        self._chance = chance
        self._num_seen = 0
        self.kept: list[SeedExample] = []

    def add(self, example: SeedExample) -> None:
        self._num_seen += 1
        if len(self.kept) < MAX_SEEDS:
            self.kept.append(example)
        elif (place := self._chance.randrange(self._num_seen)) < MAX_SEEDS:
            self.kept[place] = example


def _example(row: ChatRow) -> SeedExample | None:
    """None for a row whose end is no plain exchange of text."""
    *before, last = row.messages
    asked = before[-1] if before else None
    if asked is None or asked.role != "user" or last.tool_calls or last.function_call:
        return None
    if not asked.text().strip() or len(asked.text()) + len(last.text()) > MAX_EXAMPLE_CHARS:
        return None
    system = next((message.text() for message in before if message.role in ("system", "developer")), "")
    return SeedExample(prompt=asked.text().strip(), answer=last.text().strip(), system=system)


def read_kept_sources(folder: Path) -> Sources:
    """Of a generation's folder."""
    return msgspec.json.decode((folder / SOURCES_FILE).read_bytes(), type=Sources)

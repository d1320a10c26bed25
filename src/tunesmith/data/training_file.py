"""Is this file fit to train on? Every row is read, rendered and tokenised, as the trainer will."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tunesmith.core.errors import DataError
from tunesmith.data.findings import Finding
from tunesmith.data.formats import Kind, Row, decode_any
from tunesmith.data.read import read_lines
from tunesmith.data.rows import OTHER_METHODS
from tunesmith.data.rules import RULES
from tunesmith.data.sample import sample_texts
from tunesmith.data.scan import detect_kind
from tunesmith.data.split import held_out_rows
from tunesmith.data.token_cache import TokenCache, is_same_file
from tunesmith.data.token_findings import oversized_finding
from tunesmith.data.token_table import TableBuilder, TokenTable
from tunesmith.data.tokens import RowTokenizer

MIN_EXAMPLES = 10
_MAX_SHOWN = 5


class DatasetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a good file, for one model. Tokens are counted as rendered, once per row."""

    num_rows: int
    num_tokens: int
    num_supervised_tokens: int
    longest_row_tokens: int
    table: TokenTable
    """The same row by row, every row of the file, with what each was tokenised to as a digest."""

    def counts(self) -> dict[str, int]:
        return {
            "num_rows": self.num_rows,
            "num_tokens": self.num_tokens,
            "num_supervised_tokens": self.num_supervised_tokens,
            "longest_row_tokens": self.longest_row_tokens,
        }


def check_training_file(
    path: Path,
    *,
    tokenizer: RowTokenizer,
    max_row_tokens: int,
    min_examples: int = MIN_EXAMPLES,
    param: str = "training_file",
    cache: TokenCache | None = None,
) -> DatasetFacts:
    """Count rows and tokens of a file for supervised training. All rows are checked; the error names the first bad.

    A file that was checked before for this model is only hashed, where there is a ``cache``.
    Raises DataError with code ``invalid_n_examples`` for too few rows, else ``invalid_training_file`` or
    ``invalid_validation_file`` (from ``param``), with line, JSON path and mend of the first bad row.
    """
    before = path.stat()
    kind = _kind_of_file(path, param)
    sha256 = "" if cache is None else sha256_of_file(path)
    table = None if cache is None else cache.find(sha256, tokenizer.identity, max_row_tokens)
    if table is None or not table.fits(max_row_tokens):
        table = _tokenise(path, tokenizer, max_row_tokens, kind, param)
        if cache is not None and is_same_file(before, path.stat()):
            cache.keep(table, sha256, tokenizer.identity, max_row_tokens)
    _require_examples(table.num_rows, min_examples, param)
    return DatasetFacts(
        num_rows=table.num_rows,
        num_tokens=int(table.num_tokens.sum()),
        num_supervised_tokens=int(table.num_supervised.sum()),
        longest_row_tokens=int(table.longest.max(initial=0)),
        table=table,
    )


def data_digests(
    facts: DatasetFacts, valid_facts: DatasetFacts | None, validation_split: float | None, seed: int
) -> dict[str, str]:
    """``train`` and, where there are validation rows, ``valid``: what a run must be trained and measured on."""
    held_out = held_out_rows(facts.num_rows, validation_split, seed)
    train = [row for row in range(facts.num_rows) if row not in held_out]
    digests = {"train": facts.table.digest(train)}
    if valid_facts is not None:
        digests["valid"] = valid_facts.table.digest()
    elif held_out:
        digests["valid"] = facts.table.digest(sorted(held_out))
    return digests


def read_training_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number, row) of every row of a file for supervised training: chats, or prompts with their completions.

    Raises DataError at the first row that is wrong, and for a file of another kind.
    """
    kind = supervised_kind(path)
    for line, raw in read_lines(path):
        yield line, decode_any(raw, line, kind)


def supervised_kind(path: Path) -> Kind:
    """What the rows are. Raises DataError where supervised training has no use for them."""
    kind = detect_kind(path)
    if kind in OTHER_METHODS:
        raise DataError(
            f"The file holds {OTHER_METHODS[kind]}; supervised training takes conversations.",
            line=1,
            mend='Each line must look like {"messages": [...]}, the answer last.',
        )
    return kind or "chat"


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind_of_file(path: Path, param: str) -> Kind:
    """Before anything kept is believed: a report keeps the counts of files of other kinds too."""
    try:
        return supervised_kind(path)
    except DataError as error:
        bad = _BadRows()
        bad.add(error)
        raise bad.summary(f"invalid_{param}", param) from None


def _tokenise(path: Path, tokenizer: RowTokenizer, max_row_tokens: int, kind: Kind, param: str) -> TokenTable:
    code = f"invalid_{param}"
    bad = _BadRows()
    builder = TableBuilder(tokenizer, max_row_tokens)
    try:
        tokenizer.prove(sample_texts(path))
        for line, raw in read_lines(path):
            try:
                _add(builder, raw, line, kind, max_row_tokens)
            except DataError as error:
                bad.add(error)
    except DataError as error:  # of the whole file, or a line that cannot be read at all
        bad.add(error)
    if bad.count:
        raise bad.summary(code, param)
    return builder.table()


def _add(builder: TableBuilder, raw: bytes, line: int, kind: Kind, limit: int) -> None:
    """Raises DataError for the first error of the row. One that cannot fit is not decoded."""
    oversized = oversized_finding(len(raw), limit, line)
    findings = [oversized] if oversized else builder.add_or_raise(decode_any(raw, line, kind), line, len(raw))
    for finding in findings:
        if RULES[finding.rule].severity == "error":
            raise _data_error(finding)


def _data_error(finding: Finding) -> DataError:
    return DataError(finding.what, line=finding.line, json_path=finding.json_path, mend=RULES[finding.rule].mend)


def _require_examples(num_rows: int, min_examples: int, param: str) -> None:
    if num_rows < min_examples:
        what = "Training" if param == "training_file" else "Validation"
        raise DataError(
            f"{what} file has {num_rows} example(s), but must have at least {min_examples} examples",
            code="invalid_n_examples",
            param=param,
        )


class _BadRows:
    """The first bad rows and the number of all: a file may have millions."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[DataError] = []

    def add(self, error: DataError) -> None:
        self.count += 1
        if len(self._first) <= _MAX_SHOWN:
            self._first.append(error)

    def summary(self, code: str, param: str) -> DataError:
        """The first error, with where the others are."""
        first, *others = self._first
        message = first.message
        if others:
            more = " and more" if self.count > len(self._first) else ""
            message += f" ({self.count} rows are wrong; also line {', '.join(str(e.line) for e in others)}{more}.)"
        return DataError(message, line=first.line, json_path=first.json_path, code=code, param=param, mend=first.mend)

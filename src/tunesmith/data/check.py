"""Is this file fit to train on? Every row is read, rendered and tokenised, as the trainer will."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tunesmith.core.errors import DataError
from tunesmith.data.formats import decode_row
from tunesmith.data.read import read_lines
from tunesmith.data.tokens import RowTokenizer

MIN_EXAMPLES = 10
_MAX_SHOWN = 5
_MAX_TOKEN_BYTES = 64
"""No row of text has tokens this long on average."""


class DatasetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a good file, for one model. Tokens are counted as rendered, once per row."""

    num_rows: int
    num_tokens: int
    num_supervised_tokens: int
    longest_row_tokens: int


def check_training_file(
    path: Path,
    *,
    tokenizer: RowTokenizer,
    max_row_tokens: int,
    min_examples: int = MIN_EXAMPLES,
    param: str = "training_file",
) -> DatasetFacts:
    """Count rows and tokens of a chat file. All rows are checked; the error names the first few bad ones.

    Raises DataError with code ``invalid_n_examples`` for too few rows, else ``invalid_training_file`` or
    ``invalid_validation_file`` (from ``param``), with line, JSON path and mend of the first bad row.
    """
    code = f"invalid_{param}"
    rows = tokens = supervised = longest = 0
    bad = _BadRows()
    for line, raw in _plain_lines(path, code, param):
        rows += 1
        try:
            _check_size(raw, max_row_tokens, line)
            sequences = tokenizer.encode_row(decode_row(raw, line), line)
            length = max(len(sequence.token_ids) for sequence in sequences)
            _check_length(length, max_row_tokens, line)
        except DataError as error:
            bad.add(error)
            continue
        tokens += sum(len(sequence.token_ids) for sequence in sequences)
        supervised += sum(sequence.num_supervised_tokens for sequence in sequences)
        longest = max(longest, length)
    if bad.count:
        raise bad.summary(code, param)
    if rows < min_examples:
        what = "Training" if param == "training_file" else "Validation"
        raise DataError(
            f"{what} file has {rows} example(s), but must have at least {min_examples} examples",
            code="invalid_n_examples",
            param=param,
        )
    return DatasetFacts(num_rows=rows, num_tokens=tokens, num_supervised_tokens=supervised, longest_row_tokens=longest)


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


def _plain_lines(path: Path, code: str, param: str) -> Iterator[tuple[int, bytes]]:
    try:
        yield from read_lines(path)
    except DataError as error:  # a compressed file
        bad = _BadRows()
        bad.add(error)
        raise bad.summary(code, param) from None


def _check_size(raw: bytes, max_row_tokens: int, line: int) -> None:
    """Refuse what cannot fit before the tokeniser spends memory on it."""
    most = _MAX_TOKEN_BYTES * max_row_tokens
    if len(raw) > most:
        raise DataError(
            f"The row has {len(raw):,} bytes, more than {max_row_tokens:,} tokens can hold.",
            line=line,
            mend="Shorten or split the conversation.",
        )


def _check_length(length: int, max_row_tokens: int, line: int) -> None:
    if length > max_row_tokens:
        raise DataError(
            f"The row has {length:,} tokens; the most is {max_row_tokens:,}, and cutting it would cut the answer.",
            line=line,
            mend="Shorten or split the conversation.",
        )

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
    errors: list[DataError] = []
    for line, raw in _plain_lines(path, code, param):
        rows += 1
        try:
            sequences = tokenizer.encode_row(decode_row(raw, line), line)
            length = max(len(sequence.token_ids) for sequence in sequences)
            _check_length(length, max_row_tokens, line)
        except DataError as error:
            errors.append(error)
            continue
        tokens += sum(len(sequence.token_ids) for sequence in sequences)
        supervised += sum(sequence.num_supervised_tokens for sequence in sequences)
        longest = max(longest, length)
    if errors:
        raise _summary(errors, code, param)
    if rows < min_examples:
        what = "Training" if param == "training_file" else "Validation"
        raise DataError(
            f"{what} file has {rows} example(s), but must have at least {min_examples} examples",
            code="invalid_n_examples",
            param=param,
        )
    return DatasetFacts(num_rows=rows, num_tokens=tokens, num_supervised_tokens=supervised, longest_row_tokens=longest)


def _plain_lines(path: Path, code: str, param: str) -> Iterator[tuple[int, bytes]]:
    try:
        yield from read_lines(path)
    except DataError as error:  # a compressed file
        raise _summary([error], code, param) from None


def _check_length(length: int, max_row_tokens: int, line: int) -> None:
    if length > max_row_tokens:
        raise DataError(
            f"The row has {length:,} tokens; the most is {max_row_tokens:,}, and cutting it would cut the answer.",
            line=line,
            mend="Shorten or split the conversation.",
        )


def _summary(errors: list[DataError], code: str, param: str) -> DataError:
    first = errors[0]
    message = first.message
    if len(errors) > 1:
        others = ", ".join(str(error.line) for error in errors[1 : _MAX_SHOWN + 1])
        more = " and more" if len(errors) > _MAX_SHOWN + 1 else ""
        message += f" ({len(errors)} rows are wrong; also line {others}{more}.)"
    return DataError(message, line=first.line, json_path=first.json_path, code=code, param=param, mend=first.mend)

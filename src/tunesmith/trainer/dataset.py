"""The rows of a run as token sequences, read by the same code that checked them."""

import hashlib
from pathlib import Path

import msgspec

from tunesmith.core.errors import DataError, TrainerError
from tunesmith.core.types import RunSpec
from tunesmith.data.digest import row_digest, set_digest
from tunesmith.data.sample import sample_texts
from tunesmith.data.split import held_out_rows
from tunesmith.data.steps import step_rows
from tunesmith.data.tokens import RowTokenizer, TokenSequence
from tunesmith.data.training_file import read_training_rows


class RunData(msgspec.Struct, frozen=True, kw_only=True):
    """Training rows (each one or more sequences) and validation sequences."""

    rows: list[list[TokenSequence]]
    valid: list[TokenSequence]

    @property
    def num_train_rows(self) -> int:
        return len(self.rows)

    @property
    def train(self) -> list[TokenSequence]:
        return [sequence for row in self.rows for sequence in row]

    def step_sequences(self, step: int, spec: RunSpec) -> list[TokenSequence]:
        """The sequences of the rows that ``step`` trains on."""
        chosen = step_rows(step, num_rows=len(self.rows), batch_size=spec.batch_size, seed=spec.seed)
        return [sequence for row in chosen for sequence in self.rows[row]]


def load_data(spec: RunSpec) -> RunData:
    """Read the run's files. Raises DataError for a bad or too long row, TrainerError for data that have changed."""
    tokenizer = RowTokenizer.from_dir(Path(spec.base_dir), completions=spec.completions, today=spec.rendered_on)
    rows = _read(tokenizer, Path(spec.train_path), spec.train_sha256, spec.max_row_tokens)
    valid: list[list[TokenSequence]] = []
    if spec.valid_path is not None:
        valid = _read(tokenizer, Path(spec.valid_path), spec.valid_sha256 or "", spec.max_row_tokens)
    elif spec.validation_split:
        rows, valid = _split(rows, spec.validation_split, spec.seed)
    _require_digest(rows, spec.train_digest, "training")
    _require_digest(valid, spec.valid_digest, "validation")
    return RunData(rows=rows, valid=[sequence for row in valid for sequence in row])


def _split(
    rows: list[list[TokenSequence]], share: float, seed: int
) -> tuple[list[list[TokenSequence]], list[list[TokenSequence]]]:
    held_out = held_out_rows(len(rows), share, seed)
    train = [row for index, row in enumerate(rows) if index not in held_out]
    return train, [row for index, row in enumerate(rows) if index in held_out]


def _read(tokenizer: RowTokenizer, path: Path, sha256: str, max_row_tokens: int) -> list[list[TokenSequence]]:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise TrainerError(f"{path.name} is not the file that was checked.", code="data_changed")
    rows = []
    tokenizer.prove(sample_texts(path))
    for line, row in read_training_rows(path):
        sequences = tokenizer.encode_row(row, line)
        if max(len(sequence.token_ids) for sequence in sequences) > max_row_tokens:
            raise DataError(f"The row has more than {max_row_tokens:,} tokens.", line=line)
        rows.append(sequences)
    return rows


def _require_digest(rows: list[list[TokenSequence]], digest: str | None, what: str) -> None:
    """Whether these are the very tokens that the job recorded when its data were checked."""
    if digest is not None and digest != set_digest(map(row_digest, rows)):
        raise TrainerError(
            f"The {what} rows give other tokens than when they were checked.",
            code="data_changed",
            mend="The tokenizer or the chat template of the base model has changed: create the job again.",
        )

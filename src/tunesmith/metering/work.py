"""What a run will compute, counted from its rows by the code that trains them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tunesmith.core.types import RunSpec
from tunesmith.data.formats import decode_any
from tunesmith.data.read import read_lines
from tunesmith.data.split import held_out_rows
from tunesmith.data.steps import micro_batches, num_distinct_tokens, step_rows, steps_per_epoch
from tunesmith.data.tokens import RowTokenizer, TokenSequence
from tunesmith.data.training_file import DatasetFacts, supervised_kind
from tunesmith.metering.estimate import WorkCounts

MAX_SAMPLE_ROWS = 512
"""Rows whose batches are laid out to see what they share: a second of work or two."""


def count_work(
    spec: RunSpec, tokenizer: RowTokenizer, facts: DatasetFacts, valid_facts: DatasetFacts | None
) -> WorkCounts:
    """Counts of the run ``spec`` over its files; ``facts`` are those of the whole training file."""
    held_out = held_out_rows(facts.num_rows, spec.validation_split, spec.seed)
    train_rows = [row for row in range(facts.num_rows) if row not in held_out]
    held_out_tokens = _num_tokens(facts, list(held_out))
    sampled = _sampled_steps(spec, train_rows)
    distinct = _distinct_tokens(spec, tokenizer, facts, sampled)
    return WorkCounts(
        num_train_rows=len(train_rows),
        num_valid_rows=valid_facts.num_rows if valid_facts else len(held_out),
        epoch_tokens=facts.num_tokens - held_out_tokens,
        valid_tokens=valid_facts.num_tokens if valid_facts else held_out_tokens,
        sampled_tokens=_num_tokens(facts, [row for step in sampled for row in step]),
        sampled_distinct_tokens=sum(distinct),
        largest_piece_tokens=max(distinct),
        is_whole_epoch=sum(map(len, sampled)) == len(train_rows),
        data_bytes=sum(Path(path).stat().st_size for path in (spec.train_path, spec.valid_path) if path),
    )


def _sampled_steps(spec: RunSpec, train_rows: list[int]) -> list[list[int]]:
    """Rows of the run's first steps, by their place in the file: an epoch's, or as many as are cheap."""
    num_steps = min(steps_per_epoch(len(train_rows), spec.batch_size), max(1, MAX_SAMPLE_ROWS // spec.batch_size))
    return [
        [
            train_rows[row]
            for row in step_rows(step, num_rows=len(train_rows), batch_size=spec.batch_size, seed=spec.seed)
        ]
        for step in range(1, num_steps + 1)
    ]


def _distinct_tokens(spec: RunSpec, tokenizer: RowTokenizer, facts: DatasetFacts, steps: list[list[int]]) -> list[int]:
    """Of each micro-batch of these steps."""
    lines = {int(facts.table.lines[row]): row for step in steps for row in step}
    rows = _encode(Path(spec.train_path), tokenizer, lines)
    return [
        num_distinct_tokens(piece)
        for step in steps
        for piece in micro_batches([sequence for row in step for sequence in rows[row]], spec.micro_batch_tokens)
    ]


def _encode(path: Path, tokenizer: RowTokenizer, lines: dict[int, int]) -> dict[int, list[TokenSequence]]:
    """The sequences of the rows on these lines, by their place; the file has been checked."""
    kind = supervised_kind(path)
    return {
        lines[line]: tokenizer.encode_row(decode_any(raw, line, kind), line)
        for line, raw in read_lines(path)
        if line in lines
    }


def _num_tokens(facts: DatasetFacts, rows: Sequence[int]) -> int:
    return int(facts.table.num_tokens[np.asarray(rows, dtype=np.int64)].sum())

"""Which rows a step trains on, and how they are cut for the machine: what the trainer does and an estimate foretells.

Both are functions of the step's number, the seed and the rows, so a run can stop anywhere and be priced beforehand.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from tunesmith.data.tokens import TokenSequence


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    return math.ceil(num_rows / batch_size)


def step_rows(step: int, *, num_rows: int, batch_size: int, seed: int) -> list[int]:
    """Indices of the rows of ``step`` (from 1). Each epoch is a fresh permutation; its last step may be short."""
    epoch, place = divmod(step - 1, steps_per_epoch(num_rows, batch_size))
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    return [int(row) for row in order[place * batch_size : (place + 1) * batch_size]]


def micro_batches(sequences: Sequence[TokenSequence], max_tokens: int) -> Iterator[list[TokenSequence]]:
    """Cut a step into pieces of at most ``max_tokens`` tokens besides the prefix that a piece's rows share.

    Rows are sorted first, so that rows with a common prefix fall into the same piece; the prefix is not counted, or a
    long one would leave each row alone and be computed for each. The gradient of the step does not depend on the cut:
    each piece's loss is a sum, divided by the supervised tokens of the whole step.
    """
    rows = sorted(sequences, key=lambda item: item.token_ids)
    shared = [common_length(a.token_ids, b.token_ids, 0) for a, b in pairwise(rows)]
    piece: list[TokenSequence] = []
    num_tokens = 0
    for index, row in enumerate(rows):
        added = len(row.token_ids) - (shared[index - 1] if piece else 0)
        if piece and num_tokens + added > max_tokens:
            yield piece
            piece = []
        if not piece:
            num_tokens, added = 0, len(row.token_ids) - (shared[index] if index < len(shared) else 0)
        piece.append(row)
        num_tokens += added
    if piece:
        yield piece


def num_distinct_tokens(piece: Sequence[TokenSequence]) -> int:
    """Tokens that the trainer computes for a micro-batch: inputs (a row's last token is none), shared prefixes once."""
    inputs = sorted(row.token_ids[:-1] for row in piece)
    saved = sum(common_length(a, b, 0) for a, b in pairwise(inputs))
    return sum(map(len, inputs)) - saved


def common_length(token_ids: "array[int]", inputs: "array[int]", start: int) -> int:
    """How many of ``token_ids`` stand in ``inputs`` from ``start`` on, up to the first difference."""
    limit = min(len(token_ids), len(inputs) - start)
    if token_ids[:limit] == inputs[start : start + limit]:
        return limit
    return next(i for i in range(limit) if token_ids[i] != inputs[start + i])

"""Losses of a set of rows: the one pass that training and evaluation share.

Legend: S supervised tokens.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from tunesmith.data.steps import micro_batches
from tunesmith.data.tokens import TokenSequence
from tunesmith.trainer.batch import pack
from tunesmith.trainer.model import TrainedModel
from tunesmith.trainer.ranks import Ranks

RowSum = tuple[int, float, int, int]
"""(line, mean loss, supervised tokens, correct tokens) of one row."""


class StepLosses(NamedTuple):
    """Means over the supervised tokens of a step or of an evaluation, and what each row contributed."""

    loss: float
    accuracy: float
    rows: list[RowSum]
    num_computed_tokens: int
    num_supervised_tokens: int


def row_set_losses(
    trained: TrainedModel,
    sequences: list[TokenSequence],
    *,
    learn: bool,
    ranks: Ranks,
    max_tokens: int,
    before_each: Callable[[], None],
) -> StepLosses:
    """Mean loss over all supervised tokens of ``sequences``; with ``learn`` its gradient is added to the parameters.

    The rows are shared out over the processes in ``ranks`` and cut into micro-batches of ``max_tokens`` distinct
    tokens; neither changes the result. ``before_each`` runs before each micro-batch and may raise to stop.
    """
    num_supervised = sum(sequence.num_supervised_tokens for sequence in sequences)
    rows: list[RowSum] = []
    num_computed = 0
    for piece in micro_batches(ranks.share(sequences), max_tokens):
        before_each()
        batch = pack(piece)
        with torch.set_grad_enabled(learn):
            losses = trained.losses(batch, 1.0 / num_supervised)
            if learn:
                losses.total.backward()
        rows += _row_sums(batch.lines, batch.row_S, losses.nll_S, losses.is_correct_S)
        num_computed += len(batch.token_ids_T)
    rows, num_computed = ranks.gather(rows, num_computed)
    loss = math.fsum(loss * count for _, loss, count, _ in rows) / num_supervised
    accuracy = sum(correct for _, _, _, correct in rows) / num_supervised
    return StepLosses(loss, accuracy, rows, num_computed, num_supervised)


def _row_sums(
    lines: list[int], row_S: torch.Tensor, nll_S: torch.Tensor, is_correct_S: torch.Tensor
) -> Iterator[RowSum]:
    num_rows = len(lines)
    count = torch.bincount(row_S, minlength=num_rows).tolist()
    loss = torch.bincount(row_S, weights=nll_S.double().cpu(), minlength=num_rows).tolist()
    correct = torch.bincount(row_S, weights=is_correct_S.double().cpu(), minlength=num_rows).tolist()
    for row, line in enumerate(lines):
        yield line, loss[row] / count[row], count[row], int(correct[row])

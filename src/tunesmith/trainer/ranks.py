"""Several processes on one run (``torchrun -m tunesmith.trainer RUN_DIR``): rows are shared out, gradients are summed.

The loss of a step is divided by the supervised tokens of the whole step, so the number of processes changes nothing
but the order of sums.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Ranks:
    """This process's place among the processes of the run; alone without torchrun."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1:
            dist.init_process_group("gloo")

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every ``size``-th item, beginning with this process's own."""
        return list(items[self.rank :: self.size])

    def add_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Sum the gradients over the processes, in one message."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def gather(self, rows: list[T], count: int) -> tuple[list[T], int]:
        """All processes' rows and the sum of their counts."""
        if self.size == 1:
            return rows, count
        parts: list[tuple[list[T], int]] = [([], 0)] * self.size
        dist.all_gather_object(parts, (rows, count))
        return [row for part, _ in parts for row in part], sum(number for _, number in parts)

    def agree(self, action: str | None) -> str | None:
        """The main process's word, for all."""
        if self.size == 1:
            return action
        words = [action]
        dist.broadcast_object_list(words, src=0)
        return words[0]

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()

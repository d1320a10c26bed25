"""Which rows a step takes, and its learning rate: functions of the step's number, so a run can stop anywhere."""

import math

import numpy as np


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    return math.ceil(num_rows / batch_size)


def step_rows(step: int, *, num_rows: int, batch_size: int, seed: int) -> list[int]:
    """Indices of the rows of ``step`` (from 1). Each epoch is a fresh permutation; its last step may be short."""
    epoch, place = divmod(step - 1, steps_per_epoch(num_rows, batch_size))
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    return [int(row) for row in order[place * batch_size : (place + 1) * batch_size]]


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up, then linear decay from the peak that would reach zero one step after the last."""
    if step <= warmup_steps:
        return peak * step / warmup_steps
    return peak * (total_steps + 1 - step) / (total_steps - warmup_steps)

"""Holding training rows out for validation."""

import numpy as np


def num_held_out_rows(num_rows: int, share: float | None) -> int:
    """How many of ``num_rows`` a validation split takes: none without a share, else at least one and never all."""
    if not share:
        return 0
    return min(max(1, round(num_rows * share)), num_rows - 1)


def held_out_rows(num_rows: int, share: float | None, seed: int) -> set[int]:
    """Indices of the rows that are held out: the same for the same seed."""
    order = np.random.default_rng([seed, 2**31]).permutation(num_rows)  # 2**31 is no epoch's number
    return {int(row) for row in order[: num_held_out_rows(num_rows, share)]}

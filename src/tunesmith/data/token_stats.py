"""Statistics of a token table: what a person wants to know of the lengths before paying for them."""

import math
from collections.abc import Iterator

import numpy as np

from tunesmith.data.report import HistogramBin, TokenStats
from tunesmith.data.token_table import SHARED_BATCH_ROWS, Ints, TokenTable

MAX_BINS = 20
_NICE = (1, 2, 5)


def token_stats(
    table: TokenTable, *, model: str, tokenizer_sha256: str, limit: int, num_over_limit: int
) -> TokenStats | None:
    """``limit`` in tokens. None for a table without rows. A row's length is the sum of its sequences' lengths.

    ``num_over_limit`` counts also rows too large to be tokenised, which have no place in the table.
    """
    if table.num_rows == 0:
        return None
    lengths = table.num_tokens
    return TokenStats(
        model=model,
        tokenizer_sha256=tokenizer_sha256,
        num_tokens=int(lengths.sum()),
        num_supervised_tokens=int(table.num_supervised.sum()),
        row_min=int(lengths.min()),
        row_median=float(np.median(lengths)),
        row_p95=round(float(np.percentile(lengths, 95)), 1),
        row_max=int(lengths.max()),
        limit_tokens=limit,
        num_over_limit=num_over_limit,
        shared_prefix_tokens=table.shared_prefix_tokens,
        shared_batch_rows=SHARED_BATCH_ROWS,
        histogram=_histogram(lengths),
        digest=table.digest(),
    )


def _histogram(lengths: Ints) -> list[HistogramBin]:
    """At most ``MAX_BINS`` bins of one nice width, from 0 or just below the shortest row to the longest."""
    width = _nice_width(int(lengths.min()), int(lengths.max()))
    bins = np.ceil(lengths / width).astype(np.int64) - 1
    first, last = int(bins.min()), int(bins.max())
    counts = np.bincount(bins - first, minlength=last - first + 1)
    return [
        HistogramBin(above=(first + n) * width, up_to=(first + n + 1) * width, num_rows=int(count))
        for n, count in enumerate(counts)
    ]


def _nice_width(least: int, most: int) -> int:
    """1, 2 or 5 times a power of ten."""
    power = int(10 ** max(0, int(math.log10(max(1, most - least))) - 2))
    widths: Iterator[int] = (nice * power * int(10**n) for n in range(5) for nice in _NICE)
    return next(width for width in widths if (most - 1) // width - (least - 1) // width < MAX_BINS)

"""How many tokens a batch of rows need not compute because another row begins alike."""

from collections.abc import Sequence
from itertools import pairwise

from tunesmith.data.tokens import TokenSequence
from tunesmith.data.words import TOKEN_BYTES


class PrefixCounter:
    """Counts over batches of rows as they come; the same number as ``steps.num_distinct_tokens`` leaves over."""

    def __init__(self, batch_rows: int):
        self._batch_rows = batch_rows
        self._num_rows = 0
        self._inputs: list[bytes] = []
        self._num_counted = 0

    def add(self, sequences: Sequence[TokenSequence]) -> None:
        """One row. The last token of a sequence predicts nothing and is no input."""
        self._inputs += [sequence.token_ids.tobytes()[:-TOKEN_BYTES] for sequence in sequences]
        self._num_rows += 1
        if self._num_rows == self._batch_rows:
            self._num_counted += _num_shared(self._inputs)
            self._num_rows, self._inputs = 0, []

    @property
    def num_shared_tokens(self) -> int:
        return self._num_counted + _num_shared(self._inputs)


def _num_shared(inputs: list[bytes]) -> int:
    """Any order that puts common beginnings side by side serves, so the bytes' own does."""
    return sum(_common_bytes(a, b) // TOKEN_BYTES for a, b in pairwise(sorted(inputs)))


def _common_bytes(a: bytes, b: bytes) -> int:
    """Length of the longest common beginning, by halving."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low

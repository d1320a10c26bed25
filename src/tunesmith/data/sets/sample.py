"""An even sample of a stream whose length nobody knows yet: the same rows for the same file, memory bounded."""

from typing import Generic, TypeVar

Item = TypeVar("Item")


class EvenSample(Generic[Item]):
    """Keeps every ``stride``-th item; the stride doubles whenever there would be more than ``limit``."""

    def __init__(self, limit: int):
        self._limit = limit
        self._stride = 1
        self._num_seen = 0
        self._kept: list[Item] = []

    def wants_next(self) -> bool:
        """Whether the next item will be kept: asked before an item is made that is dear to make."""
        return self._num_seen % self._stride == 0

    def add(self, item: Item) -> None:
        if self.wants_next():
            self._keep(item)
        self._num_seen += 1

    def pass_over(self) -> None:
        """Count an item that ``wants_next`` did not ask for."""
        self._num_seen += 1

    def _keep(self, item: Item) -> None:
        if len(self._kept) == self._limit:
            self._kept = self._kept[::2]
            self._stride *= 2
            if self._num_seen % self._stride:
                return
        self._kept.append(item)

    @property
    def items(self) -> list[Item]:
        return self._kept

    @property
    def is_whole(self) -> bool:
        return self._stride == 1

    @property
    def num_seen(self) -> int:
        return self._num_seen

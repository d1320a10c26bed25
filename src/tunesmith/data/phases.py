"""How far a long work is that has several parts: each counts as many seconds as it is expected to take."""

from typing import Literal

from tunesmith.data.read import Progress

Phase = Literal["reading", "comparing", "embedding", "validation"]

READ_BYTES_PER_S = 4_000_000
COMPARED_BYTES_PER_S = 6_000_000
EMBEDDED_TEXTS_PER_S = 40
"""As a small machine does it; only their proportion matters."""
_PARTS = 1000


class Phases:
    """Tells a progress in thousandths of the whole. What is expected may change on the way; the told never falls."""

    def __init__(self, progress: Progress | None):
        self._progress = progress
        self._expected_s: dict[Phase, float] = {}
        self._done: dict[Phase, float] = {}
        self._told = -1

    def expect(self, phase: Phase, seconds: float) -> None:
        self._expected_s[phase] = seconds

    def follow(self, phase: Phase) -> Progress:
        """Takes the progress of one phase, in units of its own."""

        def note(done: int, total: int) -> None:
            self._done[phase] = done / max(total, 1)
            self._tell()

        return note

    def end(self) -> None:
        """All is done, also what was expected in vain."""
        self._say(_PARTS)

    def _tell(self) -> None:
        whole = sum(self._expected_s.values())
        done = sum(seconds * self._done.get(phase, 0.0) for phase, seconds in self._expected_s.items())
        self._say(int(_PARTS * done / whole) if whole else 0)

    def _say(self, parts: int) -> None:
        if self._progress is not None and parts > self._told:
            self._told = parts
            self._progress(parts, _PARTS)

"""What the router hands out and reports, whatever the engine."""

from dataclasses import dataclass
from typing import Literal

from tunesmith.serving.registry import ServedModel


@dataclass(frozen=True)
class Engine:
    """A running engine, as a lease sees it. It speaks HTTP in the manner of OpenAI's API.

    docs/reference/engine-llama-cpp.md lists what it understands. ``base_url`` has no trailing slash and no ``/v1``.
    """

    base_url: str
    headers: dict[str, str]
    """To be sent with every request: they carry the engine's own random key."""
    model: ServedModel
    context_tokens: int
    """Prompt and answer of one chat together."""

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint


@dataclass(frozen=True)
class EngineStatus:
    """One loaded model. ``names`` are the names it was asked for by: equal weights share an engine."""

    names: tuple[str, ...]
    fingerprint: str
    state: Literal["loading", "ready", "failed"]
    num_users: int
    idle_s: float
    pid: int | None
    resident_bytes: int

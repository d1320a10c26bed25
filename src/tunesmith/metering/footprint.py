"""How much memory and disk a run takes, from the model's shape. Checked against real runs in docs/lab/LOG.md.

Memory is the trainer's peak: runtime, weights, what is learned with its gradients and AdamW's two moments, and the
activations of the largest micro-batch, kept for the backward pass. Not covered: accelerators, several processes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from tunesmith.core.errors import InvalidRequest
from tunesmith.core.types import RunSpec
from tunesmith.metering.machine import Machine

Verdict = Literal["fits", "tight", "too big"]

RUNTIME_BYTES = 450_000_000
"""Python with torch and transformers, before a model is loaded."""
LEARNED_COPIES = 4
"""A learned weight, its gradient, and AdamW's two moments."""
SAVED_COPIES = 3
"""A checkpoint holds a learned weight and AdamW's two moments."""
LEARNED_BYTES = 4
HEAD_CHUNK_TOKENS, HEAD_COPIES = 256, 3
LINE_BYTES = 450
"""Of metrics.jsonl and events.jsonl together, for a step; twice."""
ROW_LOSS_BYTES = 110
COMFORT = 0.8
"""A run that takes more than this share of what is free is tight."""
_NUM_BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """From a model's config.json, in the names that most families use."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    intermediate_size: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None

    @property
    def inner(self) -> int:
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def query_size(self) -> int:
        return self.num_attention_heads * (self.head_dim or self.hidden_size // self.num_attention_heads)

    @property
    def key_size(self) -> int:
        return self.query_size * (self.num_key_value_heads or self.num_attention_heads) // self.num_attention_heads

    def lora_parameters(self, rank: int) -> int:
        """Of an adapter on every linear layer but the head, for a gated MLP."""
        hidden, query, key, inner = self.hidden_size, self.query_size, self.key_size, self.inner
        sides = (hidden + query) + 2 * (hidden + key) + (query + hidden) + 3 * (hidden + inner)
        return self.num_hidden_layers * rank * sides

    def activations_per_token(self) -> int:
        """Numbers that the backward pass needs for one token: of norms, attention and the MLP, in every layer."""
        attention = 2 * self.hidden_size + 3 * self.query_size + 3 * self.key_size
        return self.num_hidden_layers * (attention + 3 * self.hidden_size + 3 * self.inner)


def read_shape(base_dir: Path) -> ModelShape:
    """Raises ``InvalidRequest`` for a model whose config.json speaks otherwise."""
    try:
        return msgspec.json.decode((base_dir / "config.json").read_bytes(), type=ModelShape)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidRequest(
            f"The model's config.json does not say how large it is: {error}.", code="model_not_supported", param="model"
        ) from None


def num_learned(spec: RunSpec, shape: ModelShape, parameters: int) -> int:
    return shape.lora_parameters(spec.lora_r) if spec.training == "lora" else parameters


def peak_memory(spec: RunSpec, shape: ModelShape, parameters: int, dtype: str, largest_piece_tokens: int) -> int:
    """Bytes at the trainer's peak; ``dtype`` is what it computes in."""
    number = _NUM_BYTES[dtype]
    stored = max(number, LEARNED_BYTES) if spec.training == "full" else number
    learned = num_learned(spec, shape, parameters)
    held = learned * LEARNED_COPIES * LEARNED_BYTES
    if spec.training == "full":
        held -= parameters * LEARNED_BYTES  # the learned weight is the model's own
    kept = largest_piece_tokens * shape.activations_per_token() * stored
    head = HEAD_CHUNK_TOKENS * shape.vocab_size * LEARNED_BYTES * HEAD_COPIES
    return RUNTIME_BYTES + parameters * stored + held + kept + head


def disk_after(spec: RunSpec, shape: ModelShape, parameters: int, *, data_bytes: int, num_row_losses: int) -> int:
    """Bytes of the run's folder at its end: data, logs, the start's weights, and the checkpoints that are kept."""
    learned = num_learned(spec, shape, parameters) * LEARNED_BYTES
    has_best = spec.valid_path is not None or spec.validation_split is not None
    kept = min(spec.n_epochs, spec.keep_checkpoints + has_best)
    start = learned if spec.start_adapter_dir else 0
    logs = 2 * LINE_BYTES * spec.total_steps + ROW_LOSS_BYTES * num_row_losses
    return data_bytes + start + logs + kept * SAVED_COPIES * learned


def disk_needed(spec: RunSpec, shape: ModelShape, parameters: int, data_bytes: int) -> int:
    """Bytes that must be free at the start: what the trainer asks for, and the data."""
    learned = num_learned(spec, shape, parameters) * LEARNED_BYTES
    return data_bytes + SAVED_COPIES * learned * (spec.keep_checkpoints + 2)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Whether the run fits here, with the numbers behind the word."""

    verdict: Verdict
    reason: str
    free_memory_bytes: int
    total_memory_bytes: int
    free_disk_bytes: int


def judge(machine: Machine, *, memory_bytes: int, disk_bytes: int) -> Fit:
    """``memory_bytes`` at the peak and ``disk_bytes`` to begin with, against what is free now."""
    verdict, reason = _judge(machine, memory_bytes, disk_bytes)
    return Fit(
        verdict=verdict,
        reason=reason,
        free_memory_bytes=machine.free_memory_bytes,
        total_memory_bytes=machine.total_memory_bytes,
        free_disk_bytes=machine.free_disk_bytes,
    )


def _judge(machine: Machine, memory: int, disk: int) -> tuple[Verdict, str]:
    free, total = machine.free_memory_bytes, machine.total_memory_bytes
    if memory > total:
        return "too big", f"It needs about {_gb(memory)} of memory at its peak, and the machine has {_gb(total)}."
    if disk > machine.free_disk_bytes:
        return "too big", f"It needs {_gb(disk)} of disk, and {_gb(machine.free_disk_bytes)} are free."
    if memory > free:
        return "tight", f"It needs about {_gb(memory)} of memory at its peak; {_gb(free)} of {_gb(total)} are free now."
    if memory > COMFORT * free:
        return "tight", f"It takes about {_gb(memory)} of the {_gb(free)} of memory that are free."
    if disk > COMFORT * machine.free_disk_bytes:
        return "tight", f"It takes {_gb(disk)} of the {_gb(machine.free_disk_bytes)} of disk that are free."
    return "fits", f"It needs about {_gb(memory)} of memory, and {_gb(free)} are free; {_gb(disk)} of disk are no more."


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"

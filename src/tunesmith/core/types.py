"""The documents that carry the system: plain JSON that a person can read.

``RunSpec`` goes from the API to the trainer (``spec.json``), ``TrainerEvent`` lines come back (``events.jsonl``),
``MetricLine`` lines hold the curves (``metrics.jsonl``), ``RowLoss`` lines the loss of each row (``rows.jsonl``) and
``RunResult`` the end (``result.json``). The run directory holds all of them; the database is only its index.
"""

from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec

# Names inside a run directory.
SPEC_FILE = "spec.json"
EVENTS_FILE = "events.jsonl"
METRICS_FILE = "metrics.jsonl"
ROWS_FILE = "rows.jsonl"
RESULTS_CSV = "results.csv"
RESULT_FILE = "result.json"
CONTROL_FILE = "control.json"
LOCK_FILE = "trainer.lock"
TRAINER_LOG = "trainer.log"
CHECKPOINTS_DIR = "checkpoints"
PARITY_FILE = "parity.json"

Level = Literal["info", "warn", "error"]
Phase = Literal["loading", "training", "evaluating", "exporting"]
Action = Literal["cancel", "pause"]


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a training run depends on: a run is a function of (spec, data, seed)."""

    version: int = 1
    job_id: str
    base_model: str
    """Catalog name, for instance ``smollm2-135m-instruct``."""
    base_dir: str
    """Folder with config.json, model.safetensors, tokenizer.json, chat_template.jinja."""
    start_adapter_dir: str | None = None
    """A checkpoint folder to continue from; None starts from the base model."""
    training: Literal["lora", "full"] = "lora"
    train_path: str
    train_sha256: str
    valid_path: str | None = None
    valid_sha256: str | None = None
    validation_split: float | None = None
    """Share of the training rows held out, where there is no validation file."""
    train_digest: str | None = None
    """Of the token ids and marks of the rows that are trained on, held-out ones not among them."""
    valid_digest: str | None = None
    """Of those of the validation rows."""
    completions: Literal["chat", "plain"] | None = None
    """How a prompt with its completion is read; None refuses such a row."""
    rendered_on: date | None = None
    """The day that a chat template with a date in it shows."""
    n_epochs: int
    batch_size: int
    learning_rate: float
    learning_rate_multiplier: float
    warmup_steps: int
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_r: int = 16
    lora_alpha: float = 32.0
    seed: int
    max_row_tokens: int
    """A longer row is refused."""
    eval_every_steps: int
    eval_rows: int
    """Rows in the small validation batch measured every ``eval_every_steps``."""
    keep_checkpoints: int = 3
    """The last this many are kept, and the best one always."""
    dtype: str = "auto"
    num_threads: int = 0
    micro_batch_tokens: int = 2048
    """Most distinct tokens computed at once: memory, not mathematics."""
    num_train_rows: int
    num_train_tokens: int
    """Tokens of all training rows as rendered, once: what an epoch is billed for."""
    total_steps: int
    reasons: dict[str, str] = {}
    """Why each resolved number is what it is, by field name."""


class TrainerEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of events.jsonl. ``seq`` counts from 1 without a gap, across restarts of the trainer."""

    seq: int
    created_at: int
    level: Level = "info"
    type: Literal["message", "phase", "metrics", "checkpoint", "done"]
    message: str
    data: dict[str, Any] = {}


class MetricLine(msgspec.Struct, frozen=True, kw_only=True):
    """One step. Losses are means over supervised tokens, in nats; accuracies are shares of supervised tokens."""

    step: int
    total_steps: int
    epoch: float
    train_loss: float
    train_mean_token_accuracy: float
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None
    learning_rate: float
    grad_norm: float
    num_tokens: int
    """Tokens of the rows of this step."""
    num_computed_tokens: int
    """Distinct tokens computed, after sharing prefixes."""
    num_supervised_tokens: int
    step_s: float
    eval_s: float = 0.0
    """What the evaluations after this step took."""
    remaining_s: float
    """Estimated time to the end of the run."""


class RowLoss(msgspec.Struct, frozen=True, kw_only=True):
    """The loss of one row at one evaluation. ``line`` counts from 1 in its file."""

    step: int
    split: Literal["train", "valid"]
    line: int
    loss: float
    num_tokens: int
    num_correct: int


class CheckpointData(msgspec.Struct, frozen=True, kw_only=True):
    """``data`` of a checkpoint event."""

    step: int
    dir: str
    """Relative to the run directory."""
    sha256: str
    """Of the weights file."""
    metrics: dict[str, float | None]
    is_best: bool
    removed_steps: list[int]
    """Earlier checkpoints that were deleted to make room."""


class RunError(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    param: str | None = None


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. ``step`` is the last one done."""

    status: Literal["succeeded", "failed", "cancelled", "paused"]
    step: int
    trained_tokens: int
    """Tokens of all rows trained on, counted once for each time they were trained on: the billed number."""
    best_step: int | None = None
    peak_memory_bytes: int = 0
    dtype: str = ""
    error: RunError | None = None


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor asks of a running trainer."""

    action: Action


def write_json(path: Path, document: msgspec.Struct) -> None:
    """Write a document so that a reader sees the old one or the new one, never half of one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    temporary.replace(path)

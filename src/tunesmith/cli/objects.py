"""What the server answers, as far as the command line reads it. Fields it does not know are passed over."""

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

TERMINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str


class DataFile(FileObject, frozen=True, kw_only=True):
    """A file with where it comes from and what was made of it."""

    parent_id: str | None = None
    lineage: dict[str, Any] | None = None
    children: list[str] = []


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    code: str | None = None
    message: str | None = None
    param: str | None = None


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    n_epochs: int | str = "auto"
    batch_size: int | str = "auto"
    learning_rate_multiplier: float | str = "auto"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    created_at: int
    status: str
    model: str
    training_file: str
    validation_file: str | None = None
    fine_tuned_model: str | None = None
    finished_at: int | None = None
    estimated_finish: int | None = None
    trained_tokens: int | None = None
    seed: int | None = None
    error: JobError | None = None
    hyperparameters: Hyperparameters = Hyperparameters()
    result_files: list[str] = []
    metadata: dict[str, str] | None = None


class Money(msgspec.Struct, frozen=True, kw_only=True):
    amount: str
    currency: str


class QuotedTime(msgspec.Struct, frozen=True, kw_only=True):
    low_s: float
    high_s: float
    detail: str


class QuotedFit(msgspec.Struct, frozen=True, kw_only=True):
    verdict: str
    reason: str


class PublishedCost(msgspec.Struct, frozen=True, kw_only=True):
    provider: str
    model: str
    training: Money
    as_of: str


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    training_examples: int
    validation_examples: int
    n_epochs: int
    batch_size: int
    total_steps: int
    epoch_tokens: int
    trained_tokens: int
    computed_tokens: int
    shared_prefix_tokens: int
    training_price_per_million_tokens: Money | None
    cost: Money | None
    hosting_per_hour: Money | None
    no_prices: str | None = None
    time: QuotedTime
    peak_memory_bytes: int
    disk_bytes: int
    fit: QuotedFit
    published: list[PublishedCost]
    published_note: str
    reasons: dict[str, str] = {}


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    trained_tokens: int
    cost: Money | None
    seconds: float
    peak_memory_bytes: int | None


class JobCost(msgspec.Struct, frozen=True, kw_only=True):
    quote: Quote | None
    actual: Actual | None


class EventData(msgspec.Struct, frozen=True, kw_only=True):
    """The curve of one step; every field is absent in events that are only words."""

    phase: str | None = None
    step: int | None = None
    total_steps: int | None = None
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None
    num_tokens: int | None = None
    step_s: float | None = None
    remaining_s: float | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    created_at: int
    level: str
    message: str
    type: str = "message"
    data: EventData | None = None


class CheckpointMetrics(msgspec.Struct, frozen=True, kw_only=True):
    train_loss: float | None = None
    valid_loss: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    created_at: int
    step_number: int
    fine_tuned_model_checkpoint: str
    metrics: CheckpointMetrics


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    created: int
    owned_by: str


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    deleted: bool


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    data: list[T]
    has_more: bool = False


class Message(msgspec.Struct, frozen=True, kw_only=True):
    content: str | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    message: Message


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    choices: list[Choice]


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    delta: Delta


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a streamed answer. The last one may carry only the usage and no choice."""

    choices: list[ChunkChoice] = []


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    error: ErrorBody


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """An object, and the server's own JSON for ``--json``."""

    value: T
    document: bytes


Document = dict[str, Any]
"""A JSON request body."""

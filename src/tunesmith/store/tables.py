"""The tables. Every row has a ``number`` that counts up: it is the order of lists; ``id`` is what users see.

Times are whole Unix seconds. JSON columns hold what the API echoes; nothing is ever searched in them but
``JobRow.user_metadata``.
"""

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Names for every constraint, so that a later migration can address them on both databases.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite counts up by itself only in a column of exactly this type.
Counter = BigInteger().with_variant(Integer, "sqlite")
Document = JSON(none_as_null=True)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: BigInteger,
        str: Text,
        float: Float,
        dict[str, Any]: Document,
        dict[str, str]: Document,
        list[str]: Document,
        list[dict[str, Any]]: Document,
    }


class FileRow(Base):
    """An uploaded or produced file; its bytes are the blob whose key is ``id``."""

    __tablename__ = "files"

    number: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    bytes: Mapped[int]
    filename: Mapped[str]
    purpose: Mapped[str]
    status: Mapped[str] = mapped_column(default="processed")
    status_details: Mapped[str | None]
    expires_at: Mapped[int | None]
    sha256: Mapped[str]
    parent_id: Mapped[str | None]
    """The file that this one was made from; it may have been deleted since."""
    lineage: Mapped[dict[str, Any] | None]
    """How it was made: ``{"action": "mend" | "split" | "generate", ...}`` with what was chosen and what changed."""


class JobRow(Base):
    """A fine-tuning job, with the lease of the supervisor that attends to it.

    ``occupies_machine`` is true from the start of a trainer until it is known to be gone, whatever ``status`` tells
    the user meanwhile: a cancelled job frees its place only when its process has ended.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "status"),)

    number: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    finished_at: Mapped[int | None]
    status: Mapped[str]
    model: Mapped[str]
    """What training starts from, as resolved: a base model's id or a tuned model's name."""
    base_model: Mapped[str]
    start_checkpoint_id: Mapped[str | None]
    """Name of the model row that the run continues from; None starts from the base model."""
    suffix: Mapped[str | None]
    seed: Mapped[int]
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    method: Mapped[dict[str, Any]]
    hyperparameters: Mapped[dict[str, Any]]
    user_metadata: Mapped[dict[str, str] | None]
    extra: Mapped[dict[str, Any]]
    integrations: Mapped[list[dict[str, Any]] | None]
    fine_tuned_model: Mapped[str | None]
    trained_tokens: Mapped[int | None]
    estimated_finish: Mapped[int | None]
    error: Mapped[dict[str, Any] | None]
    result_files: Mapped[list[str]] = mapped_column(default=list)
    run_dir: Mapped[str]
    """Relative to ``settings.home``."""
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[float] = mapped_column(default=0.0)
    num_restarts: Mapped[int] = mapped_column(default=0)
    """How often a dead trainer of this job was started again."""
    event_offset_bytes: Mapped[int] = mapped_column(default=0)
    requested_action: Mapped[str | None]
    """cancel or pause: what the trainer has been asked, until it has obeyed."""
    requested_at: Mapped[float | None]
    occupies_machine: Mapped[bool] = mapped_column(default=False)
    data_digests: Mapped[dict[str, Any] | None]
    """``{"train": hex, "valid": hex or null}``: digests of the token ids and marks that the trainer must read."""
    quote: Mapped[dict[str, Any] | None]
    """What the job was expected to take when it was planned (``metering.estimate.Quote``)."""
    actual: Mapped[dict[str, Any] | None]
    """What it took, beside the quote (``metering.estimate.Actual``)."""


class EventRow(Base):
    """One event of a job. (job_id, source, source_seq) is unique: no event is ever stored twice."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("job_id", "source", "source_seq"), Index(None, "job_id", "number"))

    number: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    source: Mapped[str]
    """server or trainer."""
    source_seq: Mapped[int]
    created_at: Mapped[int]
    level: Mapped[str]
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]


class CheckpointRow(Base):
    """A checkpoint of a job, answered for by the model row ``model_name``."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step"),)

    number: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[int]
    step: Mapped[int]
    model_name: Mapped[str]
    dir: Mapped[str]
    """Relative to ``settings.home``."""
    metrics: Mapped[dict[str, Any]]
    sha256: Mapped[str]
    is_best: Mapped[bool]
    deleted: Mapped[bool] = mapped_column(default=False)


class ModelRow(Base):
    """A tuned model or a checkpoint by name. A deleted one keeps its row: its name is never given again."""

    __tablename__ = "models"

    number: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    owned_by: Mapped[str]
    base_model: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    checkpoint_step: Mapped[int]
    dir: Mapped[str]
    """The checkpoint's folder, relative to ``settings.home``."""
    sha256: Mapped[str]
    kind: Mapped[str]
    """tuned or checkpoint."""
    deleted: Mapped[bool] = mapped_column(default=False)


class KeyRow(Base):
    """An API key: its hash, and enough of its first letters to recognise it."""

    __tablename__ = "keys"

    number: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    prefix: Mapped[str]
    created_at: Mapped[int]
    last_used_at: Mapped[int | None]
    revoked_at: Mapped[int | None]

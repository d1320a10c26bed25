"""Fine-tuning jobs, their events and their checkpoints."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from tunesmith.api.wire.shape import Metadata, RequestBody, ResponseBody, WholeBody
from tunesmith.store.tables import CheckpointRow, EventRow, JobRow

Auto = Literal["auto"]


class Hyperparameters(RequestBody):
    """What a supervised run can be told. Null means ``auto``, as several clients send it."""

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto | None = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto | None = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | Auto | None = "auto"


class SupervisedMethod(RequestBody):
    hyperparameters: Hyperparameters | None = None


class Method(RequestBody):
    """How to train. The two methods that are not offered are read, so that the refusal can name them."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class CreateJob(WholeBody):
    """POST /v1/fine_tuning/jobs."""

    model: str
    training_file: str
    validation_file: str | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    """Deprecated by OpenAI, and still what most clients send."""
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    metadata: Metadata | None = None
    integrations: list[dict[str, Any]] | None = None
    tunesmith: dict[str, Any] | None = None
    """What OpenAI's API has no word for; ``jobs.request.JobExtra`` says what it may hold."""

    @property
    def supervised(self) -> Hyperparameters:
        """The hyperparameters, from ``method`` where it has them, else from the old place."""
        chosen = self.method.supervised if self.method else None
        return (chosen.hyperparameters if chosen else None) or self.hyperparameters or Hyperparameters()


class JobError(ResponseBody):
    code: str
    message: str
    param: str | None


class Job(ResponseBody):
    """A job; every key is always there. ``error`` is null while all is well."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: JobError | None
    estimated_finish: int | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, Any]
    integrations: list[dict[str, Any]]
    metadata: dict[str, str] | None
    method: dict[str, Any]
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: str
    trained_tokens: int | None
    training_file: str
    user_provided_suffix: str | None
    validation_file: str | None

    @classmethod
    def of(cls, row: JobRow, organization: str) -> Self:
        return cls(
            id=row.id,
            created_at=row.created_at,
            error=_error_of(row),
            estimated_finish=row.estimated_finish,
            fine_tuned_model=row.fine_tuned_model,
            finished_at=row.finished_at,
            hyperparameters=row.hyperparameters,
            integrations=row.integrations or [],
            metadata=row.user_metadata,
            method=row.method,
            model=row.model,
            organization_id=organization,
            result_files=row.result_files,
            seed=row.seed,
            status=row.status,
            trained_tokens=row.trained_tokens,
            training_file=row.training_file,
            user_provided_suffix=row.suffix,
            validation_file=row.validation_file,
        )


class JobList(ResponseBody):
    """A page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[Job]
    has_more: bool


class Event(ResponseBody):
    """One event of a job. OpenAI's ``type`` knows two values; ``data`` tells the rest."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]

    @classmethod
    def of(cls, row: EventRow) -> Self:
        return cls(
            id=row.id,
            created_at=row.created_at,
            level=row.level,
            message=row.message,
            type="metrics" if row.type == "metrics" else "message",
            data=row.data,
        )


class EventList(ResponseBody):
    """A page of events, newest first."""

    object: Literal["list"] = "list"
    data: list[Event]
    has_more: bool


class Checkpoint(ResponseBody):
    """A checkpoint that answers by name. ``metrics`` leaves out what was not measured: its values may not be null."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float]
    step_number: int

    @classmethod
    def of(cls, row: CheckpointRow) -> Self:
        measured = {name: value for name, value in row.metrics.items() if value is not None}
        return cls(
            id=row.id,
            created_at=row.created_at,
            fine_tuned_model_checkpoint=row.model_name,
            fine_tuning_job_id=row.job_id,
            metrics={"step": row.step, **measured},
            step_number=row.step,
        )


class CheckpointList(ResponseBody):
    """A page of checkpoints, newest first."""

    object: Literal["list"] = "list"
    data: list[Checkpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, rows: list[CheckpointRow], has_more: bool) -> Self:
        first, last = (rows[0].id, rows[-1].id) if rows else (None, None)
        return cls(data=[Checkpoint.of(row) for row in rows], first_id=first, last_id=last, has_more=has_more)


def _error_of(row: JobRow) -> JobError | None:
    if row.error is None:
        return None
    return JobError(code=row.error["code"], message=row.error["message"], param=row.error.get("param"))

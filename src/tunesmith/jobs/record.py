"""Write down what happened to a job: each function is part of a transaction that holds the job's row."""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import TrainerError
from tunesmith.core.ids import stable_id
from tunesmith.core.settings import Settings
from tunesmith.core.types import CheckpointData, MetricLine, RunResult, TrainerEvent
from tunesmith.jobs import state
from tunesmith.jobs.names import checkpoint_name, tuned_model_name
from tunesmith.jobs.prepare import Prepared
from tunesmith.jobs.quote import describe_quote, settle
from tunesmith.store.blobs import BlobFacts
from tunesmith.store.repos.checkpoints import CheckpointRepo
from tunesmith.store.repos.events import EventRepo
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.repos.models import ModelRepo
from tunesmith.store.tables import CheckpointRow, FileRow, JobRow, ModelRow

RESULTS_FILENAME = "step_metrics.csv"
RESULTS_PURPOSE = "fine-tune-results"


@dataclass(frozen=True)
class HeldJob:
    """A job's row inside a transaction of the supervisor that owns it."""

    settings: Settings
    session: Session
    row: JobRow

    def say(self, message: str, *, level: str = "info", data: dict[str, Any] | None = None) -> None:
        """Add an event of the server."""
        EventRepo(self.session).add_from_server(self.row.id, unix_now_s(), message, level=level, data=data)


def results_file_id(job_id: str) -> str:
    """Always the same for a job: storing the file twice is storing it once."""
    return stable_id("file-", job_id, "results")


def record_prepared(job: HeldJob, prepared: Prepared) -> None:
    """The files are good and every number is decided: the job waits in the queue."""
    plan = prepared.plan
    job.row.status = state.move(job.row.status, "queued")
    job.row.hyperparameters = {
        "n_epochs": plan.n_epochs,
        "batch_size": plan.batch_size,
        "learning_rate_multiplier": plan.learning_rate_multiplier,
    }
    job.row.method = {"type": "supervised", "supervised": {"hyperparameters": job.row.hyperparameters}}
    job.row.data_digests = prepared.digests
    job.say("Files validated, moving job to queued state", data=_dataset_data(prepared))
    job.say(_plan_message(prepared), data={"plan": msgspec.to_builtins(plan)})
    _record_quote(job, prepared)
    if prepared.spec.validation_split is not None:
        share = f"{prepared.spec.validation_split:.0%}"
        job.say(f"{plan.num_valid_rows} of {prepared.facts.num_rows} training rows ({share}) are held out to validate")


def record_started(job: HeldJob, *, is_resumed: bool) -> None:
    job.row.status = state.move(job.row.status, "running")
    job.say("Fine-tuning job resumed" if is_resumed else "Fine-tuning job started")


def record_events(job: HeldJob, events: list[TrainerEvent], offset_bytes: int) -> None:
    """Store the trainer's events with the offset after them, so that none is lost or stored twice.

    Raises ``TrainerError`` for an event whose data is not what its type promises.
    """
    try:
        for event in events:
            _record_event(job, event)
    except msgspec.ValidationError as error:
        raise TrainerError(f"An event of the trainer cannot be understood: {error}", code="trainer_error") from error
    job.row.event_offset_bytes = offset_bytes


def record_succeeded(job: HeldJob, result: RunResult, results_file: BlobFacts | None) -> None:
    """The tuned model answers by name; it is the last checkpoint: the final epoch's weights, as with OpenAI.

    The best checkpoint is marked by ``CheckpointRow.is_best`` and has a name of its own.
    """
    last = CheckpointRepo(job.session).get_last(job.row.id)
    if last is None:
        return record_failed(job, "trainer_error", "The trainer ended without a checkpoint.", result)
    row = job.row
    name = tuned_model_name(row.base_model, job.settings.organization, row.suffix, row.id)
    _add_model(job, name, kind="tuned", step=last.step, folder=last.dir, sha256=last.sha256)
    if results_file is not None:
        _add_results_file(job, results_file)
    row.fine_tuned_model = name
    _end(job, state.move(row.status, "succeeded"), result)
    job.say(f"New fine-tuned model created: {name}")
    job.say("The job has successfully completed")
    return None


def record_failed(
    job: HeldJob, code: str, message: str, result: RunResult | None = None, *, param: str | None = None
) -> None:
    job.row.error = {"code": code, "message": message, "param": param}
    _end(job, state.move(job.row.status, "failed"), result)
    job.say(f"The job failed: {message}", level="error", data={"code": code})


def record_paused(job: HeldJob, step: int | None) -> None:
    job.row.status = state.move(job.row.status, "paused")
    _free_machine(job)
    job.say("Fine-tuning job paused" + ("" if step is None else f" at step {step}"))


def record_gone(job: HeldJob, result: RunResult | None) -> None:
    """The trainer of a cancelled job has ended: its place is free."""
    _free_machine(job)
    settle(job.settings, job.row, result)


def record_restart(job: HeldJob, exit_status: int | None) -> None:
    """A trainer died and is started again."""
    job.row.num_restarts += 1
    how = "" if exit_status is None else f" ({_describe_exit(exit_status)})"
    most = job.settings.max_trainer_restarts
    job.say(
        f"The trainer stopped unexpectedly{how}; it goes on from its last checkpoint "
        f"(restart {job.row.num_restarts} of {most})",
        level="warn",
    )


def describe_step(line: MetricLine) -> str:
    """In OpenAI's words: ``Step 100/300: training loss=0.15, validation loss=0.27``."""
    parts = [f"training loss={line.train_loss:.2f}"]
    if line.valid_loss is not None:
        parts.append(f"validation loss={line.valid_loss:.2f}")
    if line.full_valid_loss is not None:
        parts.append(f"full validation loss={line.full_valid_loss:.2f}")
    return f"Step {line.step}/{line.total_steps}: {', '.join(parts)}"


def _record_event(job: HeldJob, event: TrainerEvent) -> None:
    if event.type == "metrics":
        _record_metrics(job, event)
    elif event.type == "checkpoint":
        _record_checkpoint(job, event)
    elif event.type != "done":  # result.json says it, with more
        _store(job, event, event.message, event.data)


def _record_metrics(job: HeldJob, event: TrainerEvent) -> None:
    line = msgspec.convert(event.data, MetricLine)
    known = {name: value for name, value in event.data.items() if value is not None}
    _store(job, event, describe_step(line), known, type="metrics")
    if job.row.status == "running":
        job.row.estimated_finish = event.created_at + round(line.remaining_s)


def _record_checkpoint(job: HeldJob, event: TrainerEvent) -> None:
    data = msgspec.convert(event.data, CheckpointData)
    row = job.row
    name = checkpoint_name(row.base_model, job.settings.organization, row.suffix, row.id, data.step)
    folder = f"{row.run_dir}/{data.dir}"
    checkpoints = CheckpointRepo(job.session)
    known = checkpoints.get_step(row.id, data.step)
    if known is None:
        checkpoint = CheckpointRow(
            id=stable_id("ftckpt_", row.id, data.step),
            job_id=row.id,
            created_at=event.created_at,
            step=data.step,
            model_name=name,
            dir=folder,
            metrics={key: value for key, value in data.metrics.items() if value is not None} | {"step": data.step},
            sha256=data.sha256,
            is_best=data.is_best,
        )
        checkpoints.add(checkpoint)
        _add_model(job, name, kind="checkpoint", step=data.step, folder=folder, sha256=data.sha256)
    if data.is_best:
        checkpoints.mark_best(row.id, data.step)
    checkpoints.mark_deleted(row.id, data.removed_steps)
    ModelRepo(job.session).mark_steps_deleted(row.id, data.removed_steps)
    _store(
        job,
        event,
        f"Checkpoint created at step {data.step}",
        {"step": data.step, "fine_tuned_model_checkpoint": name, "is_best": data.is_best},
    )


def _store(job: HeldJob, event: TrainerEvent, message: str, data: dict[str, Any], type: str = "message") -> None:
    EventRepo(job.session).add(
        job.row.id,
        source="trainer",
        source_seq=event.seq,
        created_at=event.created_at,
        level=event.level,
        type=type,
        message=message,
        data=data,
    )


def _add_model(job: HeldJob, name: str, *, kind: str, step: int, folder: str, sha256: str) -> None:
    ModelRepo(job.session).add(
        ModelRow(
            id=name,
            created_at=unix_now_s(),
            owned_by=job.settings.organization,
            base_model=job.row.base_model,
            job_id=job.row.id,
            checkpoint_step=step,
            dir=folder,
            sha256=sha256,
            kind=kind,
        )
    )


def _add_results_file(job: HeldJob, facts: BlobFacts) -> None:
    file_id = results_file_id(job.row.id)
    FileRepo(job.session).add(
        FileRow(
            id=file_id,
            created_at=unix_now_s(),
            bytes=facts.num_bytes,
            filename=RESULTS_FILENAME,
            purpose=RESULTS_PURPOSE,
            status="processed",
            sha256=facts.sha256,
        )
    )
    job.row.result_files = [file_id]


def _end(job: HeldJob, status: state.Status, result: RunResult | None) -> None:
    job.row.status = status
    job.row.finished_at = unix_now_s()
    settle(job.settings, job.row, result)
    _free_machine(job)


def _free_machine(job: HeldJob) -> None:
    job.row.occupies_machine = False
    job.row.requested_action = None
    job.row.requested_at = None
    job.row.estimated_finish = None


def _describe_exit(exit_status: int) -> str:
    return f"killed by signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"


def _record_quote(job: HeldJob, prepared: Prepared) -> None:
    if prepared.quote is None:
        job.say(f"No quote could be made: {prepared.no_quote}", level="warn")
        return
    job.row.quote = msgspec.to_builtins(prepared.quote)
    job.say(describe_quote(prepared.quote), data={"quote": job.row.quote})


def _dataset_data(prepared: Prepared) -> dict[str, Any]:
    data: dict[str, Any] = {"training_file": prepared.facts.counts(), "digests": prepared.digests}
    if prepared.valid_facts is not None:
        data["validation_file"] = prepared.valid_facts.counts()
    return data


def _plan_message(prepared: Prepared) -> str:
    plan = prepared.plan
    numbers = [
        (f"{plan.n_epochs} epochs", "n_epochs"),
        (f"batch size {plan.batch_size}", "batch_size"),
        (f"learning rate {plan.learning_rate:.2g}", "learning_rate"),
    ]
    parts = [f"{number} ({plan.reasons[field].rstrip('.')})" for number, field in numbers]
    return f"Plan: {plan.total_steps} steps; {'; '.join(parts)}"

"""What the API asks about jobs. Every call is one transaction; nothing here waits for a trainer."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from tunesmith.catalog.fetch import sha256_of
from tunesmith.catalog.models import FIND_MODELS, BaseModel, find_base_model, is_installed
from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import Conflict, InvalidRequest, NotFound
from tunesmith.core.ids import new_id
from tunesmith.core.settings import Settings
from tunesmith.core.types import Action
from tunesmith.jobs import state
from tunesmith.jobs.prepare import estimate, estimate_local
from tunesmith.jobs.quote import settle
from tunesmith.jobs.request import MAX_SEED, JobExtra, JobRequest, check_request
from tunesmith.jobs.rundir import RunDir, read_lora_shape, start_kind
from tunesmith.metering.estimate import Quote
from tunesmith.store.blobs import BlobStore
from tunesmith.store.db import Database
from tunesmith.store.repos.checkpoints import CheckpointRepo
from tunesmith.store.repos.events import EventRepo
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.repos.jobs import JobRepo
from tunesmith.store.repos.models import ModelRepo
from tunesmith.store.tables import CheckpointRow, EventRow, FileRow, JobRow, ModelRow

__all__ = ["JobRequest", "JobService"]


class JobService:
    """Jobs as OpenAI's API speaks of them. A ``Supervisor`` does what is asked here."""

    def __init__(self, settings: Settings, database: Database, blobs: BlobStore):
        self._settings = settings
        self._database = database
        self._blobs = blobs

    def create(self, request: JobRequest) -> JobRow:
        """A new job in ``validating_files``.

        Raises ``InvalidRequest`` for what OpenAI refuses at creation: numbers out of range, a model
        (code model_not_available) or file (invalid_file) that is not there, a file of the wrong purpose.
        """
        extra = check_request(request)
        with self._database.session() as session:
            job = self._new_row(session, request, extra)
            JobRepo(session).add(job)
            events = EventRepo(session)
            events.add_from_server(job.id, job.created_at, f"Created fine-tuning job: {job.id}")
            events.add_from_server(job.id, job.created_at, f"Validating training file: {job.training_file}")
            if job.validation_file:
                events.add_from_server(job.id, job.created_at, f"Validating validation file: {job.validation_file}")
            if request.integrations:
                message = "Integrations are kept with the job but not served; its result file holds every metric."
                events.add_from_server(job.id, job.created_at, message, level="warn")
            return job

    def estimate(self, request: JobRequest) -> Quote:
        """What a job of this request will take, without making one.

        Raises ``InvalidRequest`` as ``create`` does, and ``DataError`` for what would fail the job.
        """
        extra = check_request(request)
        with self._database.reading() as session:
            job = self._new_row(session, request, extra)
            start = None if job.start_checkpoint_id is None else ModelRepo(session).get(job.start_checkpoint_id)
        start_dir = None if start is None else self._settings.home / start.dir
        return estimate(self._settings, self._blobs, job, start_dir)

    def get(self, job_id: str) -> JobRow:
        """Raises ``NotFound``."""
        with self._database.reading() as session:
            return _found(JobRepo(session).get(job_id), job_id)

    def events(self, job_id: str, after: str | None = None, limit: int = 20) -> tuple[list[EventRow], bool]:
        """A job's events, newest first, and whether more follow. Raises ``NotFound``."""
        with self._database.reading() as session:
            _found(JobRepo(session).get(job_id), job_id)
            return EventRepo(session).list_page(job_id, after=after, limit=limit)

    def checkpoints(self, job_id: str, after: str | None = None, limit: int = 10) -> tuple[list[CheckpointRow], bool]:
        """A job's checkpoints that are still there, newest first, and whether more follow. Raises ``NotFound``."""
        with self._database.reading() as session:
            _found(JobRepo(session).get(job_id), job_id)
            return CheckpointRepo(session).list_page(job_id, after=after, limit=limit)

    def cancel(self, job_id: str) -> JobRow:
        """The job is cancelled when this returns; a running trainer stops before its next micro-batch.

        Raises ``NotFound``, or ``Conflict`` for a job that has ended.
        """
        with self._database.session() as session:
            job = _found(JobRepo(session).get_for_update(job_id), job_id)
            job.status = state.move(job.status, "cancelled")
            job.finished_at = unix_now_s()
            job.estimated_finish = None
            EventRepo(session).add_from_server(job_id, job.finished_at, "The job was cancelled")
            if job.occupies_machine:
                self._ask(job, "cancel")
            else:
                settle(self._settings, job, RunDir(self._settings.home / job.run_dir).read_result())
        return job

    def pause(self, job_id: str) -> JobRow:
        """Ask a running job to pause: it writes a checkpoint and then is ``paused``.

        Raises ``NotFound``, or ``Conflict`` for a job that is not running.
        """
        with self._database.session() as session:
            job = _found(JobRepo(session).get_for_update(job_id), job_id)
            state.move(job.status, "paused")
            if job.requested_action is None:
                EventRepo(session).add_from_server(job_id, unix_now_s(), "Pausing the job")
                self._ask(job, "pause")
        return job

    def resume(self, job_id: str) -> JobRow:
        """Put a paused job back into the queue, at its age. Raises ``NotFound`` or ``Conflict``."""
        with self._database.session() as session:
            job = _found(JobRepo(session).get_for_update(job_id), job_id)
            if job.status != "paused":
                raise Conflict(f"The job is {job.status}; only a paused job can be resumed.", code="invalid_job_state")
            job.status = state.move(job.status, "queued")
            EventRepo(session).add_from_server(job_id, unix_now_s(), "Job resumed, moving job to queued state")
        return job

    def list(
        self, after: str | None = None, limit: int = 20, metadata: dict[str, str] | None = None
    ) -> tuple[list[JobRow], bool]:
        """Jobs, newest first, and whether more follow. ``metadata``: None is no filter, {} jobs without any."""
        with self._database.reading() as session:
            return JobRepo(session).list_page(after=after, limit=limit, metadata=metadata)

    def _ask(self, job: JobRow, action: Action) -> None:
        # Written inside the transaction: the supervisor, which removes old wishes before a start, holds this row then.
        job.requested_action = action
        job.requested_at = float(unix_now_s())
        RunDir(self._settings.home / job.run_dir).ask(action)

    def _new_row(self, session: Session, request: JobRequest, extra: JobExtra) -> JobRow:
        base_model, start = self._resolve_model(session, request.model)
        files = [_check_file(session, request.training_file, "training_file")]
        if request.validation_file is not None:
            files.append(_check_file(session, request.validation_file, "validation_file"))
        if start is not None:
            _check_start(self._settings, start, extra)
        model = start.id if start else base_model
        seed = default_seed(model, [file.sha256 for file in files]) if request.seed is None else request.seed
        return _job_row(request, model, base_model, start.id if start else None, seed)

    def _resolve_model(self, session: Session, name: str) -> tuple[str, ModelRow | None]:
        """The base model's id and, for a tuned model's or checkpoint's name, the row to go on from."""
        start = ModelRepo(session).get(name)
        return _installed_base(self._settings, start.base_model if start else name).id, start


def estimate_files(settings: Settings, request: JobRequest, train_path: Path, valid_path: Path | None) -> Quote:
    """The quote for files of this machine that were not uploaded, by the prices and past runs in its home.

    ``request`` names them by any id. Raises ``InvalidRequest`` as ``JobService.create``, ``DataError`` for bad data.
    """
    check_request(request)
    base = _installed_base(settings, request.model)
    paths = [path for path in (train_path, valid_path) if path is not None]
    seed = default_seed(base.id, [sha256_of(path) for path in paths]) if request.seed is None else request.seed
    return estimate_local(settings, _job_row(request, base.id, base.id, None, seed), train_path, valid_path)


def default_seed(model: str, sha256s: Sequence[str]) -> int:
    """The seed of a job that asks for none: the same model and files give the same, so a quote foretells its job."""
    digest = hashlib.sha256("\n".join([model, *sha256s]).encode()).digest()
    return int.from_bytes(digest[:8], "big") % (MAX_SEED + 1)


def _job_row(request: JobRequest, model: str, base_model: str, start_id: str | None, seed: int) -> JobRow:
    hyperparameters: dict[str, Any] = {
        "n_epochs": request.n_epochs,
        "batch_size": request.batch_size,
        "learning_rate_multiplier": request.learning_rate_multiplier,
    }
    job_id = new_id("ftjob-")
    return JobRow(
        id=job_id,
        created_at=unix_now_s(),
        status="validating_files",
        model=model,
        base_model=base_model,
        start_checkpoint_id=start_id,
        suffix=request.suffix,
        seed=seed,
        training_file=request.training_file,
        validation_file=request.validation_file,
        hyperparameters=hyperparameters,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        user_metadata=request.metadata or None,
        extra=request.extra,
        integrations=request.integrations,
        run_dir=f"runs/{job_id}",
    )


def _installed_base(settings: Settings, name: str) -> BaseModel:
    base = find_base_model(settings, name)
    if base is None:
        raise InvalidRequest(
            f"Model {name} is not available for fine-tuning or does not exist.",
            code="model_not_available",
            param="model",
            mend=FIND_MODELS,
        )
    if not is_installed(settings, base.id):
        raise InvalidRequest(
            f"Model {base.id} is not installed on this server.",
            code="model_not_available",
            param="model",
            mend=f"Run: tunesmith models pull {base.id}.",
        )
    return base


def _found(job: JobRow | None, job_id: str) -> JobRow:
    if job is None:
        raise NotFound(f"Could not find fine tune: {job_id}", code="fine_tune_not_found", param="fine_tuning_job_id")
    return job


def _check_file(session: Session, file_id: str, param: str) -> FileRow:
    row = FileRepo(session).get(file_id)
    if row is None:
        raise InvalidRequest(
            f"There is no file {file_id}.", code="invalid_file", param=param, mend="Upload it first: POST /files."
        )
    if row.purpose != "fine-tune":
        raise InvalidRequest(
            f"File {file_id} has the purpose {row.purpose!r}.",
            code="invalid_file",
            param=param,
            mend="Upload it with the purpose 'fine-tune'.",
        )
    return row


def _check_start(settings: Settings, start: ModelRow, extra: JobExtra) -> None:
    kind = start_kind(settings.home / start.dir)
    if kind is None:
        raise InvalidRequest(
            f"The weights of {start.id} are no longer there.", code="model_not_available", param="model"
        )
    if kind != extra.training:
        raise InvalidRequest(
            f"{start.id} came from training {kind!r} and can only go on so.",
            code="invalid_value",
            param="tunesmith.training",
            mend=f'Send "tunesmith": {{"training": "{kind}"}}.',
        )
    if kind == "lora" and extra.lora_r not in (None, read_lora_shape(settings.home / start.dir).r):
        raise InvalidRequest(
            f"{start.id} has an adapter of another rank.",
            code="invalid_value",
            param="tunesmith.lora_r",
            mend="Leave lora_r out to go on with the adapter as it is.",
        )

"""From a job in ``validating_files`` to a run directory with data and a complete specification."""

import hashlib
import shutil
from pathlib import Path

import msgspec

from tunesmith.catalog.models import BaseModel, base_dir, find_base_model
from tunesmith.core.errors import DataError, InvalidRequest, NotFound, TunesmithError
from tunesmith.core.settings import Settings
from tunesmith.core.types import RunError, RunSpec
from tunesmith.data.check import DatasetFacts, check_training_file
from tunesmith.data.tokens import RowTokenizer
from tunesmith.jobs.plan import Plan, PlanInput, make_plan
from tunesmith.jobs.request import JobExtra, parse_extra
from tunesmith.jobs.rundir import START_FILES, RunDir, read_lora_shape, start_kind
from tunesmith.store.blobs import BlobStore
from tunesmith.store.tables import JobRow


class Prepared(msgspec.Struct, frozen=True):
    """A job that is ready to run. ``facts`` are those of the whole training file."""

    spec: RunSpec
    plan: Plan
    facts: DatasetFacts
    valid_facts: DatasetFacts | None


def prepare(settings: Settings, blobs: BlobStore, job: JobRow, start_dir: Path | None) -> Prepared:
    """Copy the job's files, check every row, plan, and write ``spec.json``. May be done again from the beginning.

    Reads of ``job`` only what never changes. ``start_dir`` is the folder of the checkpoint to go on from, None when
    there is none or when it was deleted.
    Raises ``DataError`` for bad data and ``InvalidRequest`` for a model that is no longer there.
    """
    run_dir = RunDir(settings.home / job.run_dir)
    run_dir.path.mkdir(parents=True, exist_ok=True)
    base = _base_model(settings, job.base_model)
    if job.start_checkpoint_id is not None:
        start_dir = _keep_start(job.start_checkpoint_id, start_dir, run_dir)
    extra = _resolved_extra(parse_extra(job.extra), start_dir)
    tokenizer = RowTokenizer.from_dir(base_dir(settings, base.id))
    limit = min(extra.max_row_tokens or base.context_tokens, base.context_tokens)

    _fetch(blobs, job.training_file, run_dir.train_path, "training_file")
    facts = check_training_file(run_dir.train_path, tokenizer=tokenizer, max_row_tokens=limit)
    valid_facts = None
    if job.validation_file is not None:
        _fetch(blobs, job.validation_file, run_dir.valid_path, "validation_file")
        valid_facts = check_training_file(
            run_dir.valid_path, tokenizer=tokenizer, max_row_tokens=limit, min_examples=1, param="validation_file"
        )
    plan = make_plan(_plan_input(job, extra, base, facts, valid_facts))
    spec = _make_spec(settings, job, run_dir, extra=extra, plan=plan, facts=facts, start_dir=start_dir)
    run_dir.write_spec(spec)
    return Prepared(spec, plan, facts, valid_facts)


def describe_failure(error: TunesmithError) -> RunError:
    """The job's ``error`` object, in OpenAI's words where it has any."""
    code = error.code or "invalid_training_file"
    message = str(error)
    if code in ("invalid_training_file", "invalid_validation_file"):
        kind = "training" if code == "invalid_training_file" else "validation"
        message = f"The job failed due to an invalid {kind} file. {error}"
    return RunError(code=code, message=message, param=error.param)


def _base_model(settings: Settings, model_id: str) -> BaseModel:
    base = find_base_model(settings, model_id)
    if base is None:
        raise InvalidRequest(f"The base model {model_id} was removed.", code="model_not_available", param="model")
    return base


def _keep_start(name: str, start_dir: Path | None, run_dir: RunDir) -> Path:
    """Copy the weights that training goes on from: their own run may delete that checkpoint at any time."""
    if start_dir is None or start_kind(start_dir) is None:
        raise InvalidRequest(
            f"The model {name} was deleted before the job began.", code="model_not_available", param="model"
        )
    run_dir.start_path.mkdir(exist_ok=True)
    for file_name in START_FILES:
        if (start_dir / file_name).exists():
            shutil.copyfile(start_dir / file_name, run_dir.start_path / file_name)
    return run_dir.start_path


def _resolved_extra(extra: JobExtra, start_dir: Path | None) -> JobExtra:
    """An adapter that training goes on with keeps its own rank and alpha."""
    if start_dir is None or extra.training == "full":
        return extra
    shape = read_lora_shape(start_dir)
    return msgspec.structs.replace(extra, lora_r=shape.r, lora_alpha=shape.lora_alpha)


def _fetch(blobs: BlobStore, file_id: str, to: Path, param: str) -> None:
    try:
        blobs.fetch(file_id, to)
    except NotFound:
        raise DataError(
            f"{file_id} was deleted before the job read it.", code=f"invalid_{param}", param=param
        ) from None


def _plan_input(
    job: JobRow, extra: JobExtra, base: BaseModel, facts: DatasetFacts, valid_facts: DatasetFacts | None
) -> PlanInput:
    asked = job.hyperparameters
    return PlanInput(
        n_epochs=asked["n_epochs"],
        batch_size=asked["batch_size"],
        learning_rate_multiplier=asked["learning_rate_multiplier"],
        extra=extra,
        num_rows=facts.num_rows,
        num_tokens=facts.num_tokens,
        num_valid_rows=valid_facts.num_rows if valid_facts else 0,
        num_parameters=base.parameters,
        context_tokens=base.context_tokens,
    )


def _make_spec(
    settings: Settings,
    job: JobRow,
    run_dir: RunDir,
    *,
    extra: JobExtra,
    plan: Plan,
    facts: DatasetFacts,
    start_dir: Path | None,
) -> RunSpec:
    has_file = job.validation_file is not None
    return RunSpec(
        job_id=job.id,
        base_model=job.base_model,
        base_dir=str(base_dir(settings, job.base_model)),
        start_adapter_dir=None if start_dir is None else str(start_dir),
        training=extra.training,
        train_path=str(run_dir.train_path),
        train_sha256=_sha256(run_dir.train_path),
        valid_path=str(run_dir.valid_path) if has_file else None,
        valid_sha256=_sha256(run_dir.valid_path) if has_file else None,
        validation_split=extra.validation_split,
        n_epochs=plan.n_epochs,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        learning_rate_multiplier=plan.learning_rate_multiplier,
        warmup_steps=plan.warmup_steps,
        lora_r=plan.lora_r,
        lora_alpha=plan.lora_alpha,
        seed=job.seed,
        max_row_tokens=plan.max_row_tokens,
        eval_every_steps=plan.eval_every_steps,
        eval_rows=plan.eval_rows,
        dtype=extra.dtype or settings.trainer_dtype,
        num_threads=settings.trainer_threads,
        num_train_rows=facts.num_rows,
        num_train_tokens=facts.num_tokens,
        total_steps=plan.total_steps,
        reasons=plan.reasons,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

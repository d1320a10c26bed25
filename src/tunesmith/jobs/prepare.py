"""From a job in ``validating_files`` to a run directory with data and a complete specification."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from tunesmith.catalog.models import BaseModel, base_dir, find_base_model
from tunesmith.core.errors import DataError, InvalidRequest, NotFound, TunesmithError
from tunesmith.core.settings import Settings
from tunesmith.core.types import RunError, RunSpec
from tunesmith.data.completions import completions_for
from tunesmith.data.token_cache import TokenCache
from tunesmith.data.tokens import RowTokenizer
from tunesmith.data.training_file import DatasetFacts, check_training_file, data_digests
from tunesmith.jobs.plan import Plan, PlanInput, make_plan
from tunesmith.jobs.quote import quote_run
from tunesmith.jobs.request import JobExtra, parse_extra
from tunesmith.jobs.rundir import START_FILES, RunDir, read_lora_shape, start_kind
from tunesmith.metering.estimate import Quote
from tunesmith.store.blobs import BlobStore
from tunesmith.store.tables import JobRow


class Prepared(msgspec.Struct, frozen=True):
    """A job that is ready to run. ``facts`` are those of the whole training file."""

    spec: RunSpec
    plan: Plan
    facts: DatasetFacts
    valid_facts: DatasetFacts | None
    quote: Quote | None
    """None where none could be made: ``no_quote`` says why. Training does not wait for a price."""
    no_quote: str | None = None

    @property
    def digests(self) -> dict[str, str]:
        """Of what the run trains on and is measured on, as the job records them."""
        both = {"train": self.spec.train_digest, "valid": self.spec.valid_digest}
        return {name: digest for name, digest in both.items() if digest is not None}


def prepare(settings: Settings, blobs: BlobStore, job: JobRow, start_dir: Path | None) -> Prepared:
    """Copy the job's files, check every row, plan, and write ``spec.json``. May be done again from the beginning.

    Reads of ``job`` only what never changes. ``start_dir`` is the folder of the checkpoint to go on from, None when
    there is none or when it was deleted.
    Raises ``DataError`` for bad data and ``InvalidRequest`` for a model that is no longer there.
    """
    run_dir = RunDir(settings.home / job.run_dir)
    run_dir.path.mkdir(parents=True, exist_ok=True)
    if job.start_checkpoint_id is not None:
        start_dir = _keep_start(job.start_checkpoint_id, start_dir, run_dir)
    files = _fetch_files(blobs, job, run_dir)
    run = _plan_run(settings, job, files, start_dir)
    quote, no_quote = _try_quote(settings, job, run)
    run_dir.write_spec(run.spec)
    return Prepared(run.spec, run.plan, run.facts, run.valid_facts, quote, no_quote)


def estimate(settings: Settings, blobs: BlobStore, job: JobRow, start_dir: Path | None) -> Quote:
    """The quote that ``job`` would get, leaving nothing behind. ``job`` need not be stored.

    Files of this machine are read where they lie; others are copied for the time it takes.
    Raises ``DataError`` for bad data and ``InvalidRequest`` for a missing model.
    """
    if job.start_checkpoint_id is not None:
        _require_start(job.start_checkpoint_id, start_dir)
    with _readable(settings, blobs, job) as files:
        return _quote(settings, job, _plan_run(settings, job, files, start_dir))


def estimate_local(settings: Settings, job: JobRow, train_path: Path, valid_path: Path | None) -> Quote:
    """The same for files of this machine that were not uploaded, and a base model."""
    files = _Files(train_path.absolute(), None if valid_path is None else valid_path.absolute())
    return _quote(settings, job, _plan_run(settings, job, files, None))


class _Files(NamedTuple):
    """A job's rows on this machine."""

    train: Path
    valid: Path | None


class _PlannedRun(NamedTuple):
    spec: RunSpec
    plan: Plan
    facts: DatasetFacts
    valid_facts: DatasetFacts | None
    base: BaseModel
    tokenizer: RowTokenizer


def _plan_run(settings: Settings, job: JobRow, files: _Files, start_dir: Path | None) -> _PlannedRun:
    """Check the files and decide every number; writes nothing."""
    base = _base_model(settings, job.base_model)
    extra = _resolved_extra(parse_extra(job.extra), start_dir)
    completions = completions_for(base, extra.completions, "tunesmith.completions")
    tokenizer = RowTokenizer.from_dir(base_dir(settings, base.id), completions=completions)
    limit = min(extra.max_row_tokens or base.context_tokens, base.context_tokens)
    cache = TokenCache(settings.home)
    facts = check_training_file(files.train, tokenizer=tokenizer, max_row_tokens=limit, cache=cache)
    valid_facts = None
    if files.valid is not None:
        valid_facts = check_training_file(
            files.valid,
            tokenizer=tokenizer,
            max_row_tokens=limit,
            min_examples=1,
            param="validation_file",
            cache=cache,
        )
    plan = make_plan(_plan_input(job, extra, base, facts, valid_facts))
    spec = _make_spec(settings, job, files, extra=extra, plan=plan, facts=facts, start_dir=start_dir)
    digests = data_digests(facts, valid_facts, extra.validation_split, job.seed)
    spec = msgspec.structs.replace(
        spec,
        completions=completions,
        rendered_on=tokenizer.template.today,
        train_digest=digests["train"],
        valid_digest=digests.get("valid"),
    )
    return _PlannedRun(spec, plan, facts, valid_facts, base, tokenizer)


def _quote(settings: Settings, job: JobRow, run: _PlannedRun) -> Quote:
    return quote_run(settings, job.model, run.base, run.spec, run.tokenizer, run.facts, run.valid_facts)


def _try_quote(settings: Settings, job: JobRow, run: _PlannedRun) -> tuple[Quote | None, str | None]:
    """A quote, or why there is none: a job is not quoted without its price."""
    try:
        quote = _quote(settings, job, run)
    except DataError:
        raise
    except InvalidRequest as error:
        return None, str(error)
    return (quote, None) if quote.no_prices is None else (None, quote.no_prices)


@contextmanager
def _readable(settings: Settings, blobs: BlobStore, job: JobRow) -> Iterator[_Files]:
    """The job's files where they lie; copies for a moment, on the disk that has room, of a store that is elsewhere."""
    files = _stored_files(blobs, job)
    if files is None:
        settings.home.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="estimate-", dir=settings.home) as folder:
            yield _fetch_files(blobs, job, RunDir(Path(folder)))
        return
    try:
        yield files
    except FileNotFoundError:
        _stored_files(blobs, job)  # a file that was deleted meanwhile has its own words
        raise


def _stored_files(blobs: BlobStore, job: JobRow) -> _Files | None:
    with _deleted_is_bad_data(job.training_file, "training_file"):
        train = blobs.path(job.training_file)
    if train is None or job.validation_file is None:
        return None if train is None else _Files(train, None)
    with _deleted_is_bad_data(job.validation_file, "validation_file"):
        return _Files(train, blobs.path(job.validation_file))


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
    start_dir = _require_start(name, start_dir)
    run_dir.start_path.mkdir(exist_ok=True)
    for file_name in START_FILES:
        if (start_dir / file_name).exists():
            shutil.copyfile(start_dir / file_name, run_dir.start_path / file_name)
    return run_dir.start_path


def _require_start(name: str, start_dir: Path | None) -> Path:
    if start_dir is None or start_kind(start_dir) is None:
        raise InvalidRequest(
            f"The model {name} was deleted before the job began.", code="model_not_available", param="model"
        )
    return start_dir


def _resolved_extra(extra: JobExtra, start_dir: Path | None) -> JobExtra:
    """An adapter that training goes on with keeps its own rank and alpha."""
    if start_dir is None or extra.training == "full":
        return extra
    shape = read_lora_shape(start_dir)
    return msgspec.structs.replace(extra, lora_r=shape.r, lora_alpha=shape.lora_alpha)


def _fetch_files(blobs: BlobStore, job: JobRow, run_dir: RunDir) -> _Files:
    with _deleted_is_bad_data(job.training_file, "training_file"):
        blobs.fetch(job.training_file, run_dir.train_path)
    if job.validation_file is None:
        return _Files(run_dir.train_path, None)
    with _deleted_is_bad_data(job.validation_file, "validation_file"):
        blobs.fetch(job.validation_file, run_dir.valid_path)
    return _Files(run_dir.train_path, run_dir.valid_path)


@contextmanager
def _deleted_is_bad_data(file_id: str, param: str) -> Iterator[None]:
    try:
        yield
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
    files: _Files,
    *,
    extra: JobExtra,
    plan: Plan,
    facts: DatasetFacts,
    start_dir: Path | None,
) -> RunSpec:
    return RunSpec(
        job_id=job.id,
        base_model=job.base_model,
        base_dir=str(base_dir(settings, job.base_model)),
        start_adapter_dir=None if start_dir is None else str(start_dir),
        training=extra.training,
        train_path=str(files.train),
        train_sha256=_sha256(files.train),
        valid_path=None if files.valid is None else str(files.valid),
        valid_sha256=None if files.valid is None else _sha256(files.valid),
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

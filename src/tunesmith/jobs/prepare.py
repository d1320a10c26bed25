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
    _fetch_files(blobs, job, run_dir)
    run = _plan_run(settings, job, run_dir, start_dir)
    quote = no_quote = None
    try:
        quote = _quote(settings, job, run)
    except DataError:
        raise
    except InvalidRequest as error:
        no_quote = str(error)
    run_dir.write_spec(run.spec)
    return Prepared(run.spec, run.plan, run.facts, run.valid_facts, quote, no_quote)


def estimate(settings: Settings, blobs: BlobStore, job: JobRow, start_dir: Path | None) -> Quote:
    """The quote that ``job`` would get, leaving nothing behind. ``job`` need not be stored.

    Raises ``DataError`` for bad data, ``InvalidRequest`` for a missing model and for prices that cannot be used.
    """
    if job.start_checkpoint_id is not None:
        _require_start(job.start_checkpoint_id, start_dir)
    with _scratch(settings) as run_dir:
        _fetch_files(blobs, job, run_dir)
        return _quote(settings, job, _plan_run(settings, job, run_dir, start_dir))


def estimate_local(settings: Settings, job: JobRow, train_path: Path, valid_path: Path | None) -> Quote:
    """The same for files of this machine that were not uploaded, and a base model."""
    with _scratch(settings) as run_dir:
        run_dir.train_path.symlink_to(train_path.absolute())
        if valid_path is not None:
            run_dir.valid_path.symlink_to(valid_path.absolute())
        return _quote(settings, job, _plan_run(settings, job, run_dir, None))


class _PlannedRun(NamedTuple):
    spec: RunSpec
    plan: Plan
    facts: DatasetFacts
    valid_facts: DatasetFacts | None
    base: BaseModel
    tokenizer: RowTokenizer


def _plan_run(settings: Settings, job: JobRow, run_dir: RunDir, start_dir: Path | None) -> _PlannedRun:
    """Check the files in ``run_dir`` and decide every number; writes nothing."""
    base = _base_model(settings, job.base_model)
    extra = _resolved_extra(parse_extra(job.extra), start_dir)
    completions = completions_for(base, extra.completions, "tunesmith.completions")
    tokenizer = RowTokenizer.from_dir(base_dir(settings, base.id), completions=completions)
    limit = min(extra.max_row_tokens or base.context_tokens, base.context_tokens)
    cache = TokenCache(settings.home)
    facts = check_training_file(run_dir.train_path, tokenizer=tokenizer, max_row_tokens=limit, cache=cache)
    valid_facts = None
    if job.validation_file is not None:
        valid_facts = check_training_file(
            run_dir.valid_path,
            tokenizer=tokenizer,
            max_row_tokens=limit,
            min_examples=1,
            param="validation_file",
            cache=cache,
        )
    plan = make_plan(_plan_input(job, extra, base, facts, valid_facts))
    spec = _make_spec(settings, job, run_dir, extra=extra, plan=plan, facts=facts, start_dir=start_dir)
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


@contextmanager
def _scratch(settings: Settings) -> Iterator[RunDir]:
    """A run directory for a moment, on the disk that has room for data."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="estimate-", dir=settings.home) as folder:
        yield RunDir(Path(folder))


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


def _fetch_files(blobs: BlobStore, job: JobRow, run_dir: RunDir) -> None:
    _fetch(blobs, job.training_file, run_dir.train_path, "training_file")
    if job.validation_file is not None:
        _fetch(blobs, job.validation_file, run_dir.valid_path, "validation_file")


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

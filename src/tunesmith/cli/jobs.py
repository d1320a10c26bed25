"""``tunesmith jobs``: create, list, show, watch, cancel, pause, resume, events, checkpoints."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.data_paths import is_id, local_file
from tunesmith.cli.objects import Checkpoint, Document, Event, Job, JobCost, Money, Page
from tunesmith.cli.watch import watch_job
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import load_settings

app = App(name="jobs", help="Create, watch and steer fine-tuning jobs.", default_parameter=Parameter(negative=()))


@app.command
def create(
    training_file: str,
    *,
    model: str = "smollm2-135m-instruct",
    validation_file: Annotated[str | None, Parameter(alias="--validation")] = None,
    suffix: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate_multiplier: float | None = None,
    seed: int | None = None,
    metadata: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    validation_split: float | None = None,
    training: Literal["lora", "full"] | None = None,
    lora_r: int | None = None,
    learning_rate: float | None = None,
    completions: Literal["chat", "plain"] | None = None,
    watch: bool = False,
    as_json: show.AsJson = False,
) -> int:
    """Start a fine-tuning job.

    Parameters
    ----------
    training_file
        A file's id, or a path: then it is uploaded first.
    model
        The base model, or a tuned model or checkpoint to go on from.
    validation_file
        A file's id or a path; its rows are measured and never trained on.
    suffix
        A word for the tuned model's name.
    epochs
        How often every row is trained on; the server chooses when left out.
    batch_size
        Rows in a step; the server chooses when left out.
    learning_rate_multiplier
        Scales the learning rate; the server chooses when left out.
    seed
        The same data, settings and seed give the same model.
    metadata
        Pairs like team=claims, to find the job again.
    validation_split
        Hold out this share of the training rows, where there is no validation file.
    training
        Train an adapter, or all weights.
    lora_r
        The adapter's rank.
    learning_rate
        The learning rate itself, in place of the multiplier.
    completions
        How rows of prompt and completion are trained: as a question and its answer, or as raw text.
    watch
        Follow the job until it ends.
    """
    hyperparameters = {
        "n_epochs": epochs,
        "batch_size": batch_size,
        "learning_rate_multiplier": learning_rate_multiplier,
    }
    extra = {
        "validation_split": validation_split,
        "training": training,
        "lora_r": lora_r,
        "learning_rate": learning_rate,
        "completions": completions,
    }
    with Client.from_settings(load_settings()) as client:
        body: Document = {
            "model": model,
            "training_file": _file_id(client, training_file),
            "validation_file": _file_id(client, validation_file) if validation_file else None,
            "suffix": suffix,
            "seed": seed,
            "metadata": _pairs(metadata) or None,
            "method": {"type": "supervised", "supervised": {"hyperparameters": given(hyperparameters)}},
            "tunesmith": given(extra) or None,
        }
        reply = client.create_job(given(body))
        if watch:
            return watch_job(client, reply.value.id, as_json)
        show.answer(reply, as_json, _show_job)
    if not as_json:
        show.note(f"Follow it with: tunesmith jobs watch {reply.value.id}")
    return 0


@app.command(name="list")
def list_jobs(
    *,
    limit: int = 20,
    after: str | None = None,
    metadata: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    as_json: show.AsJson = False,
) -> None:
    """List jobs, newest first.

    Parameters
    ----------
    limit
        At most this many.
    after
        Go on after this job's id.
    metadata
        Only jobs with these pairs, like team=claims.
    """
    with Client.from_settings(load_settings()) as client:
        show.answer(client.list_jobs(limit, after, _pairs(metadata)), as_json, _show_jobs)


@app.command(name="show")
def show_job(job_id: str, *, as_json: show.AsJson = False) -> None:
    """Show one job.

    Parameters
    ----------
    job_id
        For instance ftjob-abc.
    """
    with Client.from_settings(load_settings()) as client:
        reply = client.retrieve_job(job_id)
        show.answer(reply, as_json, _show_job)
        if not as_json:
            _show_cost(client.retrieve_cost(job_id).value)


@app.command
def watch(job_id: str, *, as_json: show.AsJson = False) -> int:
    """Follow a job until it ends. Ctrl-C stops watching, not the job.

    The exit status is 0 when the job has succeeded, 1 when it has failed or was cancelled.

    Parameters
    ----------
    job_id
        For instance ftjob-abc.
    """
    with Client.from_settings(load_settings()) as client:
        return watch_job(client, job_id, as_json)


@app.command
def cancel(job_id: str, *, as_json: show.AsJson = False) -> None:
    """Stop a job for good.

    Parameters
    ----------
    job_id
        For instance ftjob-abc.
    """
    _act(job_id, "cancel", as_json)


@app.command
def pause(job_id: str, *, as_json: show.AsJson = False) -> None:
    """Stop a job at a checkpoint, to go on later.

    Parameters
    ----------
    job_id
        For instance ftjob-abc.
    """
    _act(job_id, "pause", as_json)


@app.command
def resume(job_id: str, *, as_json: show.AsJson = False) -> None:
    """Go on with a paused job.

    Parameters
    ----------
    job_id
        For instance ftjob-abc.
    """
    _act(job_id, "resume", as_json)


@app.command
def events(job_id: str, *, limit: int = 20, after: str | None = None, as_json: show.AsJson = False) -> None:
    """List what happened in a job, newest first.

    Parameters
    ----------
    job_id
        For instance ftjob-abc.
    limit
        At most this many.
    after
        Go on after this event's id.
    """
    with Client.from_settings(load_settings()) as client:
        show.answer(client.list_events(job_id, limit, after), as_json, _show_events)


@app.command
def checkpoints(job_id: str, *, limit: int = 10, after: str | None = None, as_json: show.AsJson = False) -> None:
    """List a job's checkpoints, newest first. Each answers as a model under its name.

    Parameters
    ----------
    job_id
        For instance ftjob-abc.
    limit
        At most this many.
    after
        Go on after this checkpoint's id.
    """
    with Client.from_settings(load_settings()) as client:
        show.answer(client.list_checkpoints(job_id, limit, after), as_json, _show_checkpoints)


def _act(job_id: str, action: str, as_json: bool) -> None:
    with Client.from_settings(load_settings()) as client:
        reply = client.act_on_job(job_id, action)
        show.answer(reply, as_json, lambda job: show.line(f"{job.id} is {job.status}"))


def _file_id(client: Client, id_or_path: str) -> str:
    return id_or_path if is_id(id_or_path) else client.upload_file(local_file(id_or_path)).value.id


def given(values: Document) -> Document:
    return {name: value for name, value in values.items() if value is not None}


def _pairs(texts: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest(f"{text!r} is not a pair.", param="metadata", mend="Write it as key=value.")
        pairs[key] = value
    return pairs


def _show_job(job: Job) -> None:
    chosen = job.hyperparameters
    show.fields(
        [
            ("id", job.id),
            ("status", job.status),
            ("model", job.model),
            ("fine-tuned model", job.fine_tuned_model),
            ("training file", job.training_file),
            ("validation file", job.validation_file),
            ("epochs", str(chosen.n_epochs)),
            ("batch size", str(chosen.batch_size)),
            ("learning rate multiplier", str(chosen.learning_rate_multiplier)),
            ("seed", None if job.seed is None else str(job.seed)),
            ("created", show.moment(job.created_at)),
            ("expected to finish", show.moment(job.estimated_finish) if job.finished_at is None else None),
            ("finished", show.moment(job.finished_at)),
            ("trained tokens", None if job.trained_tokens is None else f"{job.trained_tokens:,}"),
            ("result files", ", ".join(job.result_files) or None),
            ("error", job.error.message if job.error else None),
        ]
    )


def _show_cost(cost: JobCost) -> None:
    """A line for the quote, and one for what it came to."""
    quote, actual = cost.quote, cost.actual
    if quote is not None:
        time = f"{show.duration(quote.time.low_s)} to {show.duration(quote.time.high_s)}"
        memory = show.size(quote.peak_memory_bytes)
        show.line(f"quoted   {_tokens_and_money(quote.trained_tokens, quote.cost)}, {time}, {memory} of memory")
    if actual is not None:
        parts = [_tokens_and_money(actual.trained_tokens, actual.cost), show.duration(actual.seconds)]
        if actual.peak_memory_bytes is not None:
            parts.append(f"{show.size(actual.peak_memory_bytes)} of memory")
        show.line(f"actual   {', '.join(parts)}")


def _tokens_and_money(num_tokens: int, cost: Money | None) -> str:
    return f"{num_tokens:,} trained tokens" + (f", {cost.amount} {cost.currency}" if cost else "")


def _show_jobs(page: Page[Job]) -> None:
    rows = [
        (job.id, job.status, job.model, job.fine_tuned_model or "", show.moment(job.created_at) or "")
        for job in page.data
    ]
    show.table(("id", "status", "model", "fine-tuned model", "created"), rows)
    if page.has_more:
        show.note(f"There are more: tunesmith jobs list --after {page.data[-1].id}")


def _show_events(page: Page[Event]) -> None:
    rows = [(show.moment(event.created_at) or "", event.level, event.message) for event in page.data]
    show.table(("time", "level", "message"), rows)


def _show_checkpoints(page: Page[Checkpoint]) -> None:
    rows = [
        (
            str(point.step_number),
            point.fine_tuned_model_checkpoint,
            show.number(point.metrics.train_loss),
            show.number(point.metrics.full_valid_loss),
            show.number(point.metrics.full_valid_mean_token_accuracy),
        )
        for point in page.data
    ]
    show.table(("step", "model", "loss", "validation loss", "validation accuracy"), rows)

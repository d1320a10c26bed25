"""A job's quote and what it took, in the words of ``metering``; and a quote for files that no job has."""

from dataclasses import replace
from datetime import timedelta

import msgspec

from tunesmith.catalog.models import BaseModel, base_dir
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings
from tunesmith.core.types import RunResult, RunSpec
from tunesmith.data.tokens import RowTokenizer
from tunesmith.data.training_file import DatasetFacts
from tunesmith.jobs.rundir import RunDir
from tunesmith.metering.actual import Actual, folder_bytes, make_actual
from tunesmith.metering.estimate import Quote, add_prices, make_quote
from tunesmith.metering.footprint import read_shape
from tunesmith.metering.machine import look_at_machine
from tunesmith.metering.prices import load_prices
from tunesmith.metering.rates import learn_rate
from tunesmith.metering.work import count_work
from tunesmith.store.tables import JobRow


def quote_run(
    settings: Settings,
    model: str,
    base: BaseModel,
    spec: RunSpec,
    tokenizer: RowTokenizer,
    facts: DatasetFacts,
    valid_facts: DatasetFacts | None,
) -> Quote:
    """The quote of a planned run whose files lie where ``spec`` says; ``model`` is what training starts from.

    Where the prices cannot be used it has no money, and says why: all else needs none.
    Raises ``InvalidRequest`` for a model whose size cannot be read.
    """
    shape = read_shape(base_dir(settings, base.id))
    counts = count_work(spec, tokenizer, facts, valid_facts)
    rate = learn_rate(settings, spec, base.parameters)
    machine = look_at_machine(settings.home)
    quote = make_quote(model, spec, base.parameters, shape, counts, rate, machine)
    try:
        return add_prices(quote, load_prices(settings))
    except InvalidRequest as error:
        return replace(quote, no_prices=str(error))


def settle(settings: Settings, job: JobRow, result: RunResult | None) -> None:
    """Write down what a job took that has ended and whose trainer is gone; ``result`` is its trainer's last word.

    A job is charged for what it trained; when its trainer left no word, up to the last checkpoint. One that never
    trained has no trained tokens, and costs nothing.
    """
    run_dir = RunDir(settings.home / job.run_dir)
    job.trained_tokens = run_dir.read_trained_tokens() if result is None else result.trained_tokens
    job.actual = msgspec.to_builtins(_actual(job, run_dir, result))


def _actual(job: JobRow, run_dir: RunDir, result: RunResult | None) -> Actual:
    return make_actual(
        None if job.quote is None else msgspec.convert(job.quote, Quote),
        status=job.status,
        trained_tokens=job.trained_tokens or 0,
        seconds=run_dir.read_trainer_seconds(),
        peak_memory_bytes=result.peak_memory_bytes or None if result else None,
        disk_bytes=folder_bytes(run_dir.path),
    )


def describe_quote(quote: Quote) -> str:
    """One sentence for the job's events."""
    low, high = (timedelta(seconds=round(seconds)) for seconds in (quote.time.low_s, quote.time.high_s))
    return (
        f"Quote: {quote.epoch_tokens:,} tokens x {quote.n_epochs} epochs = {quote.trained_tokens:,} trained tokens, "
        f"{_cost(quote)}; {low} to {high} here ({quote.time.basis}); it {_fit(quote)}"
    )


def _cost(quote: Quote) -> str:
    return "no price" if quote.cost is None else f"{quote.cost.amount} {quote.cost.currency}"


def _fit(quote: Quote) -> str:
    return {"fits": "fits here", "tight": "is tight here", "too big": "is too big here"}[quote.fit.verdict]

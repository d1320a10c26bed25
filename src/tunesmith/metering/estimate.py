"""The quote of a job before it runs: what it costs exactly, and about how long, how much memory and disk.

The billed number is exact: the tokens of the training rows as rendered, once for each time they are trained on. Rows
held out or in a validation file, waiting, and starting again after a crash cost nothing. All else is an estimate,
with its basis. Source of the rule: OpenAI's and Azure's pages on the cost of fine-tuning. Not covered: accelerators,
runs of several processes.
"""

from dataclasses import dataclass, field, replace

from tunesmith.core.types import RunSpec
from tunesmith.metering import footprint
from tunesmith.metering.footprint import Fit, ModelShape
from tunesmith.metering.machine import Machine
from tunesmith.metering.money import Money, token_cost
from tunesmith.metering.prices import PriceTable
from tunesmith.metering.rates import Basis, PastPeak, Rate, RunWork

PUBLISHED_NOTE = "At our token count; their tokenizer counts somewhat otherwise."


@dataclass(frozen=True, kw_only=True)
class WorkCounts:
    """What a run computes, counted from its rows."""

    num_train_rows: int
    num_valid_rows: int
    epoch_tokens: int
    """Tokens of the rows that an epoch trains on, each once: exact."""
    valid_tokens: int
    sampled_tokens: int
    """Tokens of the real batches in which sharing was counted."""
    sampled_distinct_tokens: int
    """Of these, what the trainer computes."""
    largest_piece_tokens: int
    """Of the largest micro-batch among them."""
    is_whole_epoch: bool
    """Whether the batches are a whole epoch."""
    data_bytes: int

    @property
    def epoch_computed_tokens(self) -> int:
        return round(self.epoch_tokens * self.sampled_distinct_tokens / max(1, self.sampled_tokens))


@dataclass(frozen=True, kw_only=True)
class TimeRange:
    """Seconds from the trainer's start to its end."""

    low_s: float
    likely_s: float
    high_s: float
    basis: Basis
    detail: str


@dataclass(frozen=True, kw_only=True)
class PublishedCost:
    """The same tokens at another provider's published price."""

    provider: str
    model: str
    training: Money
    hosting_per_hour: Money | None
    as_of: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a job will take. ``trained_tokens`` is what the finished job reports, to the token."""

    version: int = 1
    model: str
    base_model: str
    training_examples: int
    validation_examples: int
    n_epochs: int
    batch_size: int
    total_steps: int
    seed: int
    epoch_tokens: int
    trained_tokens: int
    """``epoch_tokens`` times ``n_epochs``."""
    training_price_per_million_tokens: Money | None = None
    cost: Money | None = None
    """``trained_tokens`` times the price: exact."""
    hosting_per_hour: Money | None = None
    """While the tuned model is kept ready to answer."""
    no_prices: str | None = None
    """Why there is no price, cost or hosting, and nothing published; None where there is."""
    computed_tokens: int
    """Estimate of the distinct tokens that the trainer computes."""
    shared_prefix_tokens: int
    """What sharing saves: trained tokens that need not be computed."""
    is_sharing_sampled: bool
    time: TimeRange
    peak_memory_bytes: int
    dtype: str
    """What the memory is counted for: as past runs computed; float32, the larger one, before there is any."""
    disk_bytes: int
    """Of the job's folder at the end."""
    disk_needed_bytes: int
    """Free space that the trainer asks for before it starts."""
    fit: Fit
    published: list[PublishedCost] = field(default_factory=list)
    published_note: str = PUBLISHED_NOTE
    reasons: dict[str, str]
    """Why each number that was chosen for the user is what it is."""


def make_quote(
    model: str,
    spec: RunSpec,
    parameters: int,
    shape: ModelShape,
    counts: WorkCounts,
    rate: Rate,
    machine: Machine,
) -> Quote:
    """All but the money; ``model`` is what training starts from, ``parameters`` counts the base model's weights."""
    trained = counts.epoch_tokens * spec.n_epochs
    computed = min(counts.epoch_computed_tokens * spec.n_epochs, trained)
    memory = _peak_memory(spec, shape, parameters, counts, rate)
    needed = footprint.disk_needed(spec, shape, parameters, counts.data_bytes)
    return Quote(
        model=model,
        base_model=spec.base_model,
        training_examples=counts.num_train_rows,
        validation_examples=counts.num_valid_rows,
        n_epochs=spec.n_epochs,
        batch_size=spec.batch_size,
        total_steps=spec.total_steps,
        seed=spec.seed,
        epoch_tokens=counts.epoch_tokens,
        trained_tokens=trained,
        computed_tokens=computed,
        shared_prefix_tokens=trained - computed,
        is_sharing_sampled=not counts.is_whole_epoch,
        time=_time(spec, counts, computed, rate),
        peak_memory_bytes=memory,
        dtype=rate.dtype,
        disk_bytes=_disk(spec, shape, parameters, counts),
        disk_needed_bytes=needed,
        fit=footprint.judge(machine, memory_bytes=memory, disk_bytes=needed),
        reasons=spec.reasons,
    )


def add_prices(quote: Quote, prices: PriceTable) -> Quote:
    """The quote with what its tokens cost here and elsewhere."""
    price = prices.price_of(quote.base_model)
    return replace(
        quote,
        training_price_per_million_tokens=Money.of(price.training_per_million_tokens, prices.currency),
        cost=Money.of(token_cost(quote.trained_tokens, price.training_per_million_tokens), prices.currency),
        hosting_per_hour=Money.of(price.hosting_per_hour, prices.currency),
        published=published_costs(prices, quote.trained_tokens),
    )


def published_costs(prices: PriceTable, trained_tokens: int) -> list[PublishedCost]:
    """The cheapest first. Models that are billed by the hour of training are not for this kind of job."""
    costs = [
        PublishedCost(
            provider=price.provider,
            model=price.model,
            training=Money.of(token_cost(trained_tokens, price.training_per_million_tokens), price.currency),
            hosting_per_hour=None
            if price.hosting_per_hour is None
            else Money.of(price.hosting_per_hour, price.currency),
            as_of=price.as_of,
            source=price.source,
        )
        for price in prices.published or []
        if price.training_per_million_tokens is not None
    ]
    return sorted(costs, key=lambda cost: (cost.training.value, cost.model))


def _time(spec: RunSpec, counts: WorkCounts, computed_tokens: int, rate: Rate) -> TimeRange:
    work = RunWork(
        computed_tokens=computed_tokens,
        num_steps=spec.total_steps,
        eval_tokens=_eval_tokens(spec, counts),
        num_epochs=spec.n_epochs,
    )
    low, high = rate.range_s(work)
    return TimeRange(
        low_s=round(low, 1),
        likely_s=round(rate.seconds(work), 1),
        high_s=round(high, 1),
        basis=rate.basis,
        detail=rate.detail,
    )


def _eval_tokens(spec: RunSpec, counts: WorkCounts) -> int:
    """Before the first step, every few steps, and the whole set at each epoch's end."""
    if not counts.num_valid_rows:
        return 0
    return round(_num_row_evaluations(spec, counts) * counts.valid_tokens / counts.num_valid_rows)


def _num_row_evaluations(spec: RunSpec, counts: WorkCounts) -> int:
    num_small = 1 + spec.total_steps // spec.eval_every_steps + spec.n_epochs
    return num_small * min(spec.eval_rows, counts.num_valid_rows) + spec.n_epochs * counts.num_valid_rows


def _peak_memory(spec: RunSpec, shape: ModelShape, parameters: int, counts: WorkCounts, rate: Rate) -> int:
    """The formula, corrected by how far past runs were from it."""
    by_formula = footprint.peak_memory(spec, shape, parameters, rate.dtype, counts.largest_piece_tokens)
    past = [
        peak.memory_bytes / footprint.peak_memory(peak.spec, shape, parameters, peak.dtype, _piece_tokens(peak))
        for peak in rate.peaks
    ]
    return round(by_formula * min(2.0, max(0.5, *past))) if past else by_formula


def _piece_tokens(peak: PastPeak) -> int:
    """Of the largest micro-batch: a step's tokens, or what a micro-batch may hold."""
    return min(peak.step_tokens, peak.spec.micro_batch_tokens)


def _disk(spec: RunSpec, shape: ModelShape, parameters: int, counts: WorkCounts) -> int:
    num_row_losses = counts.num_train_rows * spec.n_epochs + _num_row_evaluations(spec, counts)
    return footprint.disk_after(spec, shape, parameters, data_bytes=counts.data_bytes, num_row_losses=num_row_losses)

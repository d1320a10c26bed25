"""``tunesmith files estimate``: what a job on a file will take."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.data_paths import is_id, local_file
from tunesmith.cli.jobs import given
from tunesmith.cli.objects import Answer, Document, Money, Quote
from tunesmith.core.settings import load_settings

MAX_PUBLISHED = 4


def estimate(
    file: str,
    *,
    model: str = "smollm2-135m-instruct",
    validation_file: Annotated[str | None, Parameter(alias="--validation")] = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    validation_split: float | None = None,
    training: Literal["lora", "full"] | None = None,
    lora_r: int | None = None,
    completions: Literal["chat", "plain"] | None = None,
    as_json: show.AsJson = False,
) -> None:
    """Say what a job on a file will take: tokens and money exactly, time and memory about.

    A path is estimated on this machine, without a server; a file's id by the server that has it.

    Parameters
    ----------
    file
        A path, or a file's id.
    model
        The base model; with a file's id also a tuned model or checkpoint to go on from.
    validation_file
        A path or an id, as the training file: rows that are measured and never trained on.
    epochs
        How often every row is trained on; chosen for you when left out.
    batch_size
        Rows in a step; chosen for you when left out.
    seed
        Decides which rows are held out.
    validation_split
        Hold out this share of the training rows, where there is no validation file.
    training
        Train an adapter, or all weights.
    lora_r
        The adapter's rank.
    completions
        How rows of prompt and completion are trained: as a question and its answer, or as raw text.
    """
    options = {"validation_split": validation_split, "training": training, "lora_r": lora_r}
    extra = given({**options, "completions": completions})
    chosen = given({"n_epochs": epochs, "batch_size": batch_size})
    if is_id(file):
        body: Document = {
            "model": model,
            "training_file": file,
            "validation_file": validation_file,
            "seed": seed,
            "method": {"type": "supervised", "supervised": {"hyperparameters": chosen}},
            "tunesmith": extra or None,
        }
        with Client.from_settings(load_settings()) as client:
            reply = client.estimate_job(given(body))
    else:
        reply = _estimate_here(file, validation_file, model, seed, chosen, extra)
    show.answer(reply, as_json, _show_quote)


def _estimate_here(
    file: str, validation_file: str | None, model: str, seed: int | None, chosen: Document, extra: Document
) -> Answer[Quote]:
    from tunesmith.jobs.service import JobRequest, estimate_files

    train = local_file(file)
    valid = None if validation_file is None else local_file(validation_file)
    request = JobRequest(
        model=model, training_file=file, validation_file=validation_file, seed=seed, extra=extra, **chosen
    )
    document = msgspec.json.encode(estimate_files(load_settings(), request, train, valid))
    return Answer(msgspec.json.decode(document, type=Quote), document)


def _show_quote(quote: Quote) -> None:
    time = f"{show.duration(quote.time.low_s)} to {show.duration(quote.time.high_s)} ({quote.time.detail})"
    show.fields(
        [
            ("model", quote.model),
            ("examples", f"{quote.training_examples:,}"),
            ("validation examples", f"{quote.validation_examples:,}" if quote.validation_examples else None),
            ("epochs", f"{quote.n_epochs} ({quote.reasons.get('n_epochs', '')})"),
            ("batch size", f"{quote.batch_size} ({quote.reasons.get('batch_size', '')})"),
            ("steps", f"{quote.total_steps:,}"),
            ("trained tokens", f"{quote.epoch_tokens:,} x {quote.n_epochs} = {quote.trained_tokens:,}"),
            (
                "computed tokens",
                f"about {quote.computed_tokens:,}; shared prefixes save {quote.shared_prefix_tokens:,}",
            ),
            ("cost", _cost(quote)),
            ("hosting", _amount(quote.hosting_per_hour, "an hour")),
            ("time", time),
            ("peak memory", f"about {show.size(quote.peak_memory_bytes)}"),
            ("disk", f"about {show.size(quote.disk_bytes)}"),
            ("here", f"{quote.fit.verdict}: {quote.fit.reason}"),
        ]
    )
    for other in quote.published[:MAX_PUBLISHED]:
        amount = f"{Decimal(other.training.amount):f} {other.training.currency}"
        show.line(f"  at {other.provider}'s price for {other.model}: {amount} (as of {other.as_of})")
    if quote.published:
        show.note(quote.published_note)


def _cost(quote: Quote) -> str:
    if quote.cost is None:
        return f"not known: {quote.no_prices}"
    price = _amount(quote.training_price_per_million_tokens, "for a million tokens")
    return f"{quote.cost.amount} {quote.cost.currency} ({price})"


def _amount(money: Money | None, of_what: str) -> str | None:
    return None if money is None else f"{money.amount} {money.currency} {of_what}"

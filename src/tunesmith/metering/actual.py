"""What a job took, beside what was quoted."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunesmith.metering.estimate import Quote
from tunesmith.metering.money import Money, token_cost


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """Actual over quoted; None where one of them is nothing, or not known."""

    trained_tokens: float | None
    cost: float | None
    seconds: float | None
    peak_memory: float | None
    disk: float | None


@dataclass(frozen=True, kw_only=True)
class Actual:
    """What a job took. A job that never trained costs nothing; one that was ended is charged for what it trained."""

    status: str
    trained_tokens: int
    cost: Money | None
    """At the quoted price; None where none was quoted: then nothing is charged."""
    seconds: float
    """For which the job's trainers worked, to the second; waiting and pauses are not counted."""
    peak_memory_bytes: int | None
    disk_bytes: int
    ratios: Ratios | None
    """None without a quote."""


def make_actual(
    quote: Quote | None,
    *,
    status: str,
    trained_tokens: int,
    seconds: float,
    peak_memory_bytes: int | None,
    disk_bytes: int,
) -> Actual:
    """``quote`` is None for a job that ended before its files were checked, and for those of older versions."""
    cost = _actual_cost(quote, trained_tokens)
    return Actual(
        status=status,
        trained_tokens=trained_tokens,
        cost=cost,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes,
        disk_bytes=disk_bytes,
        ratios=None
        if quote is None
        else Ratios(
            trained_tokens=_ratio(trained_tokens, quote.trained_tokens),
            cost=_ratio(_value(cost), _value(quote.cost)),
            seconds=_ratio(seconds, quote.time.likely_s),
            peak_memory=_ratio(peak_memory_bytes, quote.peak_memory_bytes),
            disk=_ratio(disk_bytes, quote.disk_bytes),
        ),
    )


def _actual_cost(quote: Quote | None, trained_tokens: int) -> Money | None:
    if quote is None or quote.training_price_per_million_tokens is None:
        return None
    price = quote.training_price_per_million_tokens
    return Money.of(token_cost(trained_tokens, price.value), price.currency)


def _value(money: Money | None) -> float | None:
    return None if money is None else float(money.value)


def _ratio(actual: float | None, quoted: float | None) -> float | None:
    return round(actual / quoted, 4) if actual is not None and quoted else None


def folder_bytes(folder: Path) -> int:
    """Size of all files in it; 0 where there is none."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a trainer that is being ended may still remove some
            total += file.stat().st_size if file.is_file() else 0
    return total

"""Prices: our own, which every installation edits, and what OpenAI and Azure publish, to compare with.

The built-in table is ``prices.json`` beside this file. ``prices.json`` in the home replaces our part of it whole, so
that no built-in number is ever mixed with another currency; the published prices stay unless the file brings its own.
Our built-in numbers are starting values: a machine of 0.10 an hour at the rates in docs/lab/LOG.md, and round
numbers for larger models. Not covered: discounts, batch prices, taxes.
"""

from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings
from tunesmith.metering.money import plain

PRICES_FILE = "prices.json"
MAX_PRICE = Decimal(1_000_000)
MAX_DECIMALS = 9
_Amount = Decimal | None


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What we ask for one model, in the table's currency."""

    training_per_million_tokens: Decimal
    hosting_per_hour: Decimal
    input_per_million_tokens: Decimal
    output_per_million_tokens: Decimal


class PublishedPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What another provider asks; None where it asks nothing or says nothing."""

    provider: str
    model: str
    kind: Literal["tuned", "base"]
    """``tuned``: to train it and to use what was tuned; ``base``: to use the model as it is."""
    training_per_million_tokens: _Amount = None
    training_per_hour: _Amount = None
    hosting_per_hour: _Amount = None
    input_per_million_tokens: Decimal
    cached_input_per_million_tokens: _Amount = None
    output_per_million_tokens: Decimal
    as_of: str
    """Month in which the price was read, like 2026-11."""
    source: str
    currency: str = "USD"

    @property
    def name(self) -> str:
        """For instance ``OpenAI/gpt-4.1`` for the base model and ``OpenAI/gpt-4.1:tuned`` for one tuned from it."""
        return f"{self.provider}/{self.model}" + (":tuned" if self.kind == "tuned" else "")


class PriceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    currency: str
    default: Price
    """For every model that ``models`` does not name."""
    models: dict[str, Price] = {}
    """By the base model's id."""
    published: list[PublishedPrice] | None = None

    def price_of(self, base_model: str) -> Price:
        return self.models.get(base_model, self.default)

    def find_published(self, name: str) -> PublishedPrice | None:
        return next((price for price in self.published or [] if price.name == name), None)


def load_prices(settings: Settings) -> PriceTable:
    """The prices that hold here now. Raises ``InvalidRequest`` (invalid_prices) for a bad ``home/prices.json``."""
    builtin = _decode(resources.files("tunesmith.metering").joinpath(PRICES_FILE).read_bytes(), PRICES_FILE)
    own = settings.home / PRICES_FILE
    if not own.exists():
        return builtin
    table = _decode(_read(own), PRICES_FILE)
    return table if table.published is not None else msgspec.structs.replace(table, published=builtin.published)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _bad(path.name, f"cannot be read: {error.strerror}") from None


def _decode(text: bytes, name: str) -> PriceTable:
    try:
        table = msgspec.json.decode(text.removeprefix(b"\xef\xbb\xbf"), type=PriceTable)
    except msgspec.MsgspecError as error:
        what, _, where = str(error).partition(" - at `$")
        raise _bad(name, f"{where.strip('.`') or 'the file'}: {what}") from None
    if not 1 <= len(table.currency) <= 8:
        raise _bad(name, f"currency: {table.currency!r} is no currency's code")
    for where, price in [("default", table.default), *((f"models.{id}", price) for id, price in table.models.items())]:
        _check_amounts(name, where, price)
    for number, published in enumerate(table.published or []):
        _check_amounts(name, f"published[{number}]", published)
    return table


def _check_amounts(name: str, where: str, price: msgspec.Struct) -> None:
    for field in price.__struct_fields__:
        amount = getattr(price, field)
        if isinstance(amount, Decimal) and not _is_price(amount):
            raise _bad(name, f"{where}.{field}: {amount} is not a price")


def _is_price(amount: Decimal) -> bool:
    return amount.is_finite() and 0 <= amount <= MAX_PRICE and len(plain(amount).partition(".")[2]) <= MAX_DECIMALS


def _bad(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"The prices in {name} cannot be used: {what}.",
        code="invalid_prices",
        mend="docs/guides/costs.md shows the file; a price is a number from 0 to 1,000,000, for instance 0.05.",
    )

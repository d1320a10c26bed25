"""Money without drift: decimal numbers, an amount always with its currency, in documents as plain text."""

from dataclasses import dataclass
from decimal import Decimal

MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Money:
    """``amount`` is an exact decimal number without an exponent, for instance ``0.000123``."""

    amount: str
    currency: str

    @classmethod
    def of(cls, amount: Decimal, currency: str) -> "Money":
        return cls(plain(amount), currency)

    @property
    def value(self) -> Decimal:
        return Decimal(self.amount)


def plain(amount: Decimal) -> str:
    """Without an exponent and without zeros that say nothing."""
    return format(amount.normalize(), "f") if amount else "0"


def token_cost(num_tokens: int, per_million: Decimal) -> Decimal:
    """Exact: a price has few digits, and a division by a million only moves the point."""
    return num_tokens * per_million / MILLION

"""Is a small tuned model cheaper than a larger one with a long prompt, and from how many calls a month on?

A call costs its input and output tokens. What is hosted costs its hours whether it is called or not, and training is
paid once and spread over the months in which the model serves. Not covered: quality. The larger model may answer
better, or need fewer retries; evaluate before you switch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from tunesmith.catalog.models import BaseModel
from tunesmith.core.errors import InvalidRequest
from tunesmith.metering.money import Money, token_cost
from tunesmith.metering.prices import PriceTable

HOURS_PER_MONTH = Decimal(730)
"""365 days of 24 hours over 12 months."""
MICRO = Decimal("0.000001")
_PRICES = ("input_per_million_tokens", "output_per_million_tokens", "hosting_per_hour")

Verdict = Literal["always", "from break-even", "up to break-even", "never", "equal"]
Source = Literal["request", "prices of this server", "published prices"]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One side. Prices given here go before those that the tables have for ``model``."""

    model: str
    """A base model of this server or one tuned from it, a published one like ``OpenAI/gpt-4.1``, or any with prices."""
    prompt_tokens: int
    """Instructions and examples sent with every call, before the user's own words."""
    input_per_million_tokens: Decimal | None = None
    output_per_million_tokens: Decimal | None = None
    hosting_per_hour: Decimal | None = None
    hosting_hours_per_month: Decimal = HOURS_PER_MONTH
    training_cost: Decimal = Decimal(0)
    currency: str | None = None
    """Of the prices given here; None is the currency of this server's table."""


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """Every number is 0 or more; ``months``, over which the training is spread, at least 1."""

    tuned: Contender
    base: Contender
    message_tokens: int
    """The user's own words in a call: the same for both."""
    answer_tokens: int
    calls_per_month: int | None = None
    months: int = 12


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one contender costs."""

    model: str
    input_tokens_per_call: int
    output_tokens_per_call: int
    price_per_call: Money
    hosting_per_month: Money
    fixed_per_month: Money
    """Hosting, and the month's share of the training to a millionth."""
    month: Money | None
    """Everything for ``calls_per_month`` calls."""
    prices_from: Source
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both sides, and where they meet."""

    tuned: Side
    base: Side
    saved_tokens_per_call: int
    saved_per_call: Money
    """Negative when a call of the tuned model is dearer."""
    verdict: Verdict
    """When the tuned model is not the dearer one."""
    break_even_calls_per_month: int | None
    """With ``from break-even`` the fewest calls at which the tuned model costs no more, with ``up to break-even`` the
    most; None where there is no such number."""
    explanation: str


@dataclass(frozen=True, kw_only=True)
class _Terms:
    input_per_million_tokens: Decimal
    output_per_million_tokens: Decimal
    hosting_per_hour: Decimal
    currency: str
    source: Source
    note: str | None


def compare(request: CompareRequest, prices: PriceTable, models: Sequence[BaseModel]) -> Comparison:
    """``models`` are those that this server knows: the table's default price is for them.

    Raises ``InvalidRequest``: unknown_price for a model without prices, currency_mismatch for two currencies.
    """
    tuned = _side(request, request.tuned, _terms(request.tuned, prices, models, "tuned"))
    base = _side(request, request.base, _terms(request.base, prices, models, "base"))
    currency = tuned.price_per_call.currency
    if base.price_per_call.currency != currency:
        raise InvalidRequest(
            f"The prices are in {currency} and {base.price_per_call.currency}.",
            code="currency_mismatch",
            param="base",
            mend="Give the prices of one side in the other's currency.",
        )
    saved = base.price_per_call.value - tuned.price_per_call.value
    verdict, calls = _meet(saved, tuned.fixed_per_month.value - base.fixed_per_month.value)
    return Comparison(
        tuned=tuned,
        base=base,
        saved_tokens_per_call=base.input_tokens_per_call - tuned.input_tokens_per_call,
        saved_per_call=Money.of(saved, currency),
        verdict=verdict,
        break_even_calls_per_month=calls,
        explanation=_explain(verdict, calls),
    )


def _terms(side: Contender, prices: PriceTable, models: Sequence[BaseModel], param: str) -> _Terms:
    """What the request gives, completed from the published prices or our own."""
    given = {name: getattr(side, name) for name in _PRICES if getattr(side, name) is not None}
    known = _published_terms(side, prices) or _own_terms(side, prices, models)
    if known is None:
        return _given_terms(side, prices, param)
    if not given:
        return known
    if side.currency is not None and side.currency != known.currency and len(given) < len(_PRICES):
        raise InvalidRequest(
            f"Some prices of {param} are in {side.currency}, the others in {known.currency}.",
            code="currency_mismatch",
            param=param,
            mend=f"Give all of {', '.join(_PRICES)}.",
        )
    return replace(known, **given, source="request", currency=side.currency or known.currency)


def _published_terms(side: Contender, prices: PriceTable) -> _Terms | None:
    published = prices.find_published(side.model)
    if published is None:
        return None
    return _Terms(
        input_per_million_tokens=published.input_per_million_tokens,
        output_per_million_tokens=published.output_per_million_tokens,
        hosting_per_hour=published.hosting_per_hour or Decimal(0),
        currency=published.currency,
        source="published prices",
        note=f"As of {published.as_of}. {published.source}.",
    )


def _own_terms(side: Contender, prices: PriceTable, models: Sequence[BaseModel]) -> _Terms | None:
    """A model that the table names, or that is known here; a tuned one has its base model's prices."""
    name = side.model.split(":")[1] if side.model.startswith("ft:") else side.model
    base = next((model.id for model in models if name == model.id or name in model.aliases), name)
    if base not in prices.models and all(base != model.id for model in models):
        return None
    own = prices.price_of(base)
    return _Terms(
        input_per_million_tokens=own.input_per_million_tokens,
        output_per_million_tokens=own.output_per_million_tokens,
        hosting_per_hour=own.hosting_per_hour,
        currency=prices.currency,
        source="prices of this server",
        note=None if base in prices.models else "The table's default, as it does not name this model.",
    )


def _given_terms(side: Contender, prices: PriceTable, param: str) -> _Terms:
    """Of a model that nobody here knows: our default price would be a lie about it."""
    if side.input_per_million_tokens is None or side.output_per_million_tokens is None:
        raise InvalidRequest(
            f"No price of {side.model} is known.",
            code="unknown_price",
            param=f"{param}.model",
            mend="Give input_per_million_tokens and output_per_million_tokens, the name of a model that is installed "
            "here, or one that GET /api/prices lists.",
        )
    return _Terms(
        input_per_million_tokens=side.input_per_million_tokens,
        output_per_million_tokens=side.output_per_million_tokens,
        hosting_per_hour=side.hosting_per_hour or Decimal(0),
        currency=side.currency or prices.currency,
        source="request",
        note="No price of hosting was given: none is counted." if side.hosting_per_hour is None else None,
    )


def _side(request: CompareRequest, given: Contender, terms: _Terms) -> Side:
    input_tokens = given.prompt_tokens + request.message_tokens
    call = token_cost(input_tokens, terms.input_per_million_tokens)
    call += token_cost(request.answer_tokens, terms.output_per_million_tokens)
    hosting = terms.hosting_per_hour * given.hosting_hours_per_month
    fixed = hosting + (given.training_cost / request.months).quantize(MICRO)
    month = None if request.calls_per_month is None else fixed + call * request.calls_per_month
    return Side(
        model=given.model,
        input_tokens_per_call=input_tokens,
        output_tokens_per_call=request.answer_tokens,
        price_per_call=Money.of(call, terms.currency),
        hosting_per_month=Money.of(hosting, terms.currency),
        fixed_per_month=Money.of(fixed, terms.currency),
        month=None if month is None else Money.of(month, terms.currency),
        prices_from=terms.source,
        note=terms.note,
    )


def _meet(saved_per_call: Decimal, extra_fixed: Decimal) -> tuple[Verdict, int | None]:
    """Where ``extra_fixed`` equals calls times ``saved_per_call``, in whole calls and exactly."""
    if saved_per_call == 0:
        return ("never" if extra_fixed > 0 else "always" if extra_fixed < 0 else "equal"), None
    crossing = Fraction(extra_fixed) / Fraction(saved_per_call)
    if saved_per_call > 0:
        return ("from break-even", math.ceil(crossing)) if crossing > 0 else ("always", None)
    return ("up to break-even", math.floor(crossing)) if crossing > 0 else ("never", None)


def _explain(verdict: Verdict, calls: int | None) -> str:
    return {
        "always": "The tuned model is the cheaper one at any number of calls.",
        "from break-even": f"The tuned model costs no more from {calls or 0:,} calls a month on.",
        "up to break-even": f"The tuned model costs no more up to {calls or 0:,} calls a month.",
        "never": "The tuned model never pays off: its calls save nothing, and it costs no less to keep.",
        "equal": "Both cost the same at any number of calls.",
    }[verdict]

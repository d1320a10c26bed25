"""The comparison's arithmetic, against sums done by hand."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tunesmith.catalog.models import BaseModel, list_base_models
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings
from tunesmith.metering.compare import CompareRequest, Comparison, Contender, compare
from tunesmith.metering.money import plain
from tunesmith.metering.prices import PriceTable, load_prices

D = Decimal
MODELS = (
    *list_base_models(Settings()),
    BaseModel(id="mine", name="Mine", parameters=1, context_tokens=1, created=1, license="mit", aliases=("me",)),
)


@pytest.fixture
def prices(tmp_path: Path) -> PriceTable:
    return load_prices(Settings(home=tmp_path))


def contender(model: str = "x", prompt: int = 0, *prices: str, **more: Any) -> Contender:
    names = ("input_per_million_tokens", "output_per_million_tokens", "hosting_per_hour")
    return Contender(model=model, prompt_tokens=prompt, **dict(zip(names, map(D, prices), strict=False)), **more)


def meet(tuned: Contender, base: Contender, prices: PriceTable, **more: Any) -> Comparison:
    return compare(CompareRequest(tuned=tuned, base=base, message_tokens=100, answer_tokens=50, **more), prices, MODELS)


def test_a_long_prompt_against_a_tuned_model(prices: PriceTable) -> None:
    """gpt-4.1 with 2,000 tokens of prompt: 2,100 * 2 + 50 * 8 = 4,600 millionths a call.

    The tuned one, 150 * 0.06 + 50 * 0.15 = 16.5 millionths, is kept for 0.10 * 730 = 73 a month, and its training of 12
    is 1 a month: 74 / 0.0045835 = 16,144.9 calls.
    """
    tuned = contender("smollm2-135m-instruct", 50, training_cost=D(12))
    result = meet(tuned, contender("OpenAI/gpt-4.1", 2_000), prices, calls_per_month=20_000)
    assert result.base.price_per_call.amount == "0.0046"
    assert result.tuned.price_per_call.amount == "0.0000165"
    assert result.saved_per_call.amount == "0.0045835"
    assert result.saved_tokens_per_call == 1_950
    assert (result.tuned.hosting_per_month.amount, result.tuned.fixed_per_month.amount) == ("73", "74")
    assert (result.verdict, result.break_even_calls_per_month) == ("from break-even", 16_145)
    assert result.base.month is not None
    assert result.tuned.month is not None
    assert (result.base.month.amount, result.tuned.month.amount) == ("92", "74.33")
    assert "16,145 calls" in result.explanation
    assert (result.tuned.prices_from, result.base.prices_from) == ("prices of this server", "published prices")
    assert "2026" in (result.base.note or "")


def test_at_break_even_and_one_call_before(prices: PriceTable) -> None:
    tuned, base = contender("a", 0, "1", "1", "0.07"), contender("b", 900, "3", "3", "0")
    calls = meet(tuned, base, prices).break_even_calls_per_month
    assert calls is not None
    for number, is_cheaper in [(calls, True), (calls - 1, False)]:
        result = meet(tuned, base, prices, calls_per_month=number)
        assert result.tuned.month is not None
        assert result.base.month is not None
        assert (result.tuned.month.value <= result.base.month.value) is is_cheaper


def test_it_meets_on_a_whole_call_exactly(prices: PriceTable) -> None:
    """73 a month over 0.0001 a call is 730,000 calls: not one more by a rounding."""
    tuned, base = contender("a", 0, "0", "0", "0.1"), contender("b", 0, "1", "0", "0")
    assert meet(tuned, base, prices).break_even_calls_per_month == 730_000


@pytest.mark.parametrize(
    ("tuned", "base", "verdict", "calls"),
    [
        (("0", "0", "0"), ("1", "0", "0"), "always", None),
        (("1", "0", "0"), ("1", "0", "0"), "equal", None),
        (("1", "0", "1"), ("1", "0", "0"), "never", None),
        (("2", "0", "1"), ("1", "0", "0"), "never", None),
        (("2", "0", "0"), ("1", "0", "0"), "never", None),
        (("2", "0", "0"), ("1", "0", "1"), "up to break-even", 7_300_000),
        (("1", "0", "0"), ("1", "0", "1"), "always", None),
        (("0", "0", "1"), ("1", "0", "0"), "from break-even", 7_300_000),
    ],
)
def test_every_way_two_lines_can_lie(
    prices: PriceTable, tuned: tuple[str, ...], base: tuple[str, ...], verdict: str, calls: int | None
) -> None:
    result = meet(contender("a", 0, *tuned), contender("b", 0, *base), prices)
    assert (result.verdict, result.break_even_calls_per_month) == (verdict, calls)
    assert result.explanation


def test_given_prices_go_before_the_tables(prices: PriceTable) -> None:
    side = meet(contender("OpenAI/gpt-4.1", 0, "1"), contender("OpenAI/gpt-new", 0, "5", "6"), prices)
    assert (side.tuned.price_per_call.amount, side.tuned.prices_from) == ("0.0005", "request")
    assert side.base.price_per_call.amount == "0.0008"


@pytest.mark.parametrize("name", ["mine", "me", "ft:mine:org::abc"])
def test_a_model_that_is_installed_has_the_tables_default(prices: PriceTable, name: str) -> None:
    side = meet(contender(name), contender("OpenAI/gpt-4.1"), prices).tuned
    assert (side.prices_from, side.price_per_call.amount) == ("prices of this server", _default_call(prices))
    assert "default" in (side.note or "")


def test_a_tuned_model_has_its_base_models_prices(prices: PriceTable) -> None:
    base, tuned = "smollm2-135m-instruct", "ft:smollm2-135m-instruct:org:claims:abc"
    result = meet(contender(tuned), contender(base), prices)
    assert (result.verdict, result.tuned.note) == ("equal", None)


@pytest.mark.parametrize("name", ["no-such-model", "ft:no-such-model:org::abc", "ft:", "OpenAI/gpt-none"])
@pytest.mark.parametrize("given", [(), ("1",)])
def test_no_price_is_made_up_for_a_model_that_nobody_knows(
    prices: PriceTable, name: str, given: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        meet(contender(name, 0, *given), contender("OpenAI/gpt-4.1"), prices)
    assert (caught.value.code, caught.value.param) == ("unknown_price", "tuned.model")


def test_hosting_that_was_not_given_is_not_made_up(prices: PriceTable) -> None:
    side = meet(contender("no-such-model", 0, "1", "1"), contender("OpenAI/gpt-4.1"), prices).tuned
    assert (side.hosting_per_month.amount, side.prices_from) == ("0", "request")
    assert "none is counted" in (side.note or "")


def _default_call(prices: PriceTable) -> str:
    own = prices.default
    return plain((100 * own.input_per_million_tokens + 50 * own.output_per_million_tokens) / 1_000_000)


def test_what_cannot_be_compared(prices: PriceTable) -> None:
    ours = contender("smollm2-135m-instruct")
    with pytest.raises(InvalidRequest) as caught:
        meet(ours, contender("OpenAI/gpt-none"), prices)
    assert (caught.value.code, caught.value.param) == ("unknown_price", "base.model")
    euros = replace(contender("a", 0, "1", "1", "1"), currency="EUR")
    with pytest.raises(InvalidRequest, match="EUR") as caught:
        meet(ours, euros, prices)
    assert caught.value.code == "currency_mismatch"
    with pytest.raises(InvalidRequest, match="Give all of"):
        meet(ours, replace(contender("OpenAI/gpt-4.1", 0, "1"), currency="EUR"), prices)
    assert meet(euros, euros, prices).saved_per_call.currency == "EUR"

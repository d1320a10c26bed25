"""The price table: the built-in one, and the file in the home that replaces it."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings
from tunesmith.metering.money import Money, plain, token_cost
from tunesmith.metering.prices import load_prices

OWN = {
    "training_per_million_tokens": 0.1,
    "hosting_per_hour": "0.2",
    "input_per_million_tokens": 3,
    "output_per_million_tokens": 0.000000001,
}


def write(home: Path, table: Any) -> Settings:
    (home / "prices.json").write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
    return Settings(home=home)


def test_the_builtin_table_has_the_embedded_model_and_dated_published_prices(tmp_path: Path) -> None:
    table = load_prices(Settings(home=tmp_path))
    assert "smollm2-135m-instruct" in table.models
    mini = table.find_published("OpenAI/gpt-4o-mini:tuned")
    assert mini is not None
    assert mini.training_per_million_tokens == Decimal("3.00")
    azure = table.find_published("Azure/gpt-4.1:tuned")
    assert azure is not None
    assert azure.hosting_per_hour == Decimal("1.70")
    assert all(price.as_of >= "2026" and price.source for price in table.published or [])
    names = [price.name for price in table.published or []]
    assert len(names) == len(set(names))


def test_the_worked_examples_of_the_vendors(tmp_path: Path) -> None:
    """100,000 tokens in 3 epochs: 0.90 with gpt-4o-mini, 2.40 with gpt-3.5-turbo. A million in 2 on Azure: 4."""
    table = load_prices(Settings(home=tmp_path))
    for name, tokens, cost in [
        ("OpenAI/gpt-4o-mini:tuned", 300_000, "0.9"),
        ("OpenAI/gpt-3.5-turbo:tuned", 300_000, "2.4"),
        ("Azure/gpt-4.1:tuned", 2_000_000, "4"),
    ]:
        price = table.find_published(name)
        assert price is not None
        assert price.training_per_million_tokens is not None
        assert plain(token_cost(tokens, price.training_per_million_tokens)) == cost


def test_the_home_replaces_our_prices_and_keeps_the_published_ones(tmp_path: Path) -> None:
    settings = write(tmp_path, {"currency": "EUR", "default": OWN})
    table = load_prices(settings)
    assert (table.currency, table.models) == ("EUR", {})
    assert table.price_of("anything").training_per_million_tokens == Decimal("0.1")
    assert table.published == load_prices(Settings(home=tmp_path / "none")).published
    assert load_prices(write(tmp_path, {"currency": "EUR", "default": OWN, "published": []})).published == []
    named = load_prices(
        write(tmp_path, {"currency": "EUR", "default": OWN, "models": {"m": OWN | {"hosting_per_hour": 9}}})
    )
    assert named.price_of("m").hosting_per_hour == 9
    assert named.price_of("n").hosting_per_hour == Decimal("0.2")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("{", "the file"),
        ("", "the file"),
        ("[]", "Expected `object`"),
        ({"currency": "EUR"}, "default"),
        ({"currency": "", "default": OWN}, "currency"),
        ({"currency": "EUR", "default": OWN, "model": {}}, "model"),
        ({"currency": "EUR", "default": {k: v for k, v in OWN.items() if k != "hosting_per_hour"}}, "hosting_per_hour"),
        ({"currency": "EUR", "default": OWN | {"hosting_per_hour": -1}}, "default.hosting_per_hour: -1"),
        ({"currency": "EUR", "default": OWN | {"hosting_per_hour": "NaN"}}, "default.hosting_per_hour: NaN"),
        ({"currency": "EUR", "default": OWN | {"hosting_per_hour": "1e9"}}, "default.hosting_per_hour: 1E+9"),
        ({"currency": "EUR", "default": OWN | {"hosting_per_hour": "0.0000000001"}}, "is not a price"),
        ({"currency": "EUR", "default": OWN | {"hosting_per_hour": "cheap"}}, "default.hosting_per_hour: Invalid"),
        ({"currency": "EUR", "default": OWN | {"hosting_per_hour": None}}, "default.hosting_per_hour"),
        ({"currency": "EUR", "default": OWN, "models": {"m": OWN | {"hosting_per_hour": "-0.1"}}}, "models.m.hosting"),
    ],
)  # fmt: skip
def test_a_bad_table_says_where(tmp_path: Path, table: Any, words: str) -> None:
    settings = write(tmp_path, table)
    with pytest.raises(InvalidRequest) as caught:
        load_prices(settings)
    assert caught.value.code == "invalid_prices"
    assert words in str(caught.value)
    assert "prices.json" in str(caught.value)
    assert str(tmp_path) not in str(caught.value), "clients of a server read it"


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "prices.json").mkdir()
    with pytest.raises(InvalidRequest, match="cannot be read"):
        load_prices(Settings(home=tmp_path))


def test_money_is_exact_and_plain() -> None:
    assert plain(token_cost(1, Decimal("0.05"))) == "0.00000005"
    assert plain(token_cost(3, Decimal("0.1"))) == "0.0000003"
    assert plain(sum((token_cost(1, Decimal("0.1")) for _ in range(10)), Decimal(0))) == "0.000001"
    assert plain(Decimal("1E+3")) == "1000"
    assert plain(Decimal("-0.50")) == "-0.5"
    assert Money.of(Decimal(0), "EUR") == Money("0", "EUR")
    assert token_cost(2_000_000_000, Decimal("25.123456789")) == Decimal("50246.913578")

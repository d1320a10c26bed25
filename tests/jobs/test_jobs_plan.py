"""The plan: the published rules, the bounds, and a reason for every number."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.split import num_held_out_rows
from tunesmith.jobs.plan import PlanInput, full_learning_rate, make_plan
from tunesmith.jobs.request import JobExtra


def plan_input(num_rows: int = 240, extra: JobExtra | None = None, **fields: Any) -> PlanInput:
    values: dict[str, Any] = {
        "n_epochs": "auto",
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
        "num_tokens": num_rows * 100,
        "num_valid_rows": 0,
        "num_parameters": 134_515_008,
        "context_tokens": 8192,
    }
    return PlanInput(extra=extra or JobExtra(), num_rows=num_rows, **(values | fields))


@pytest.mark.parametrize(
    ("num_rows", "n_epochs"),
    [(10, 10), (3, 25), (33, 3), (34, 3), (25, 4), (100, 3), (8333, 3), (8334, 2), (20_000, 1), (90_000, 1)],
)
def test_epochs_follow_the_cookbook(num_rows: int, n_epochs: int) -> None:
    assert make_plan(plan_input(num_rows)).n_epochs == n_epochs


@pytest.mark.parametrize(
    ("num_rows", "batch_size"), [(10, 4), (12, 4), (240, 4), (2_000, 4), (4_000, 8), (8_000, 16), (100_000, 32)]
)
def test_batch_sizes_are_a_share_within_bounds(num_rows: int, batch_size: int) -> None:
    assert make_plan(plan_input(num_rows)).batch_size == batch_size


def test_a_small_set_in_few_epochs_still_gets_steps() -> None:
    plan = make_plan(plan_input(30, n_epochs=1))
    assert (plan.batch_size, plan.total_steps) == (1, 30)


def test_a_batch_is_never_larger_than_the_set() -> None:
    plan = make_plan(plan_input(10, batch_size=256, n_epochs=2))
    assert (plan.batch_size, plan.total_steps) == (10, 2)
    assert plan.reasons["batch_size"] == "256 was asked, but there are 10 rows."


def test_what_is_asked_is_taken() -> None:
    extra = JobExtra(lora_r=4, lora_alpha=4.0, learning_rate=1e-3, max_row_tokens=64)
    plan = make_plan(plan_input(240, extra, n_epochs=7, batch_size=5, learning_rate_multiplier=0.5))
    assert (plan.n_epochs, plan.batch_size, plan.learning_rate_multiplier) == (7, 5, 0.5)
    assert (plan.lora_r, plan.lora_alpha, plan.max_row_tokens) == (4, 4.0, 64)
    assert plan.learning_rate == pytest.approx(5e-4)
    assert plan.reasons["n_epochs"] == "As asked."


def test_lora_takes_ten_times_the_full_rate_and_fifteen_in_short_runs() -> None:
    full = full_learning_rate(134_515_008)
    assert full == pytest.approx(2e-4)
    long = make_plan(plan_input(1_000))
    short = make_plan(plan_input(240, n_epochs=1))
    assert long.learning_rate == pytest.approx(10 * full)
    assert short.total_steps < 100
    assert short.learning_rate == pytest.approx(15 * full)
    whole = make_plan(plan_input(1_000, JobExtra(training="full"), learning_rate_multiplier=2))
    assert whole.learning_rate == pytest.approx(2 * full)


def test_the_full_rate_falls_with_the_size_and_never_rises_above_its_reference() -> None:
    assert full_learning_rate(1_000) == full_learning_rate(135_000_000) == pytest.approx(2e-4)
    assert full_learning_rate(7_000_000_000) == pytest.approx(2.8e-5, rel=0.02)
    assert full_learning_rate(70_000_000_000) == pytest.approx(8.8e-6, rel=0.02)


def test_a_split_takes_its_rows_away_from_training() -> None:
    plan = make_plan(plan_input(50, JobExtra(validation_split=0.2)))
    assert (plan.num_train_rows, plan.num_valid_rows) == (40, 10)
    assert plan.total_steps == plan.n_epochs * math.ceil(40 / plan.batch_size)
    assert num_held_out_rows(10, 0.01) == 1
    assert num_held_out_rows(10, 0.99) == 9
    assert num_held_out_rows(10, None) == 0


def test_without_validation_rows_nothing_is_evaluated() -> None:
    plan = make_plan(plan_input(240))
    assert plan.eval_rows == 0
    assert plan.reasons["eval_rows"] == "No validation rows."


def test_measured_about_every_ten_steps() -> None:
    assert make_plan(plan_input(1_000, num_valid_rows=60)).eval_every_steps == 10
    short = make_plan(plan_input(20, n_epochs=1, batch_size=2, num_valid_rows=60))
    assert (short.total_steps, short.eval_every_steps) == (10, 2)


@given(
    num_rows=st.integers(10, 200_000),
    n_epochs=st.one_of(st.just("auto"), st.integers(1, 50)),
    batch_size=st.one_of(st.just("auto"), st.integers(1, 256)),
    num_valid_rows=st.integers(0, 1_000),
    split=st.one_of(st.none(), st.floats(0.001, 0.999)),
    num_parameters=st.integers(1, 10**12),
)
def test_every_plan_is_sound_and_explained(
    *, num_rows: int, n_epochs: Any, batch_size: Any, num_valid_rows: int, split: float | None, num_parameters: int
) -> None:
    given_input = plan_input(
        num_rows,
        JobExtra(validation_split=split),
        n_epochs=n_epochs,
        batch_size=batch_size,
        num_valid_rows=num_valid_rows if split is None else 0,
        num_parameters=num_parameters,
    )
    plan = make_plan(given_input)
    assert plan == make_plan(given_input)
    assert 1 <= plan.n_epochs <= 50
    assert 1 <= plan.batch_size <= min(256, plan.num_train_rows)
    assert plan.total_steps == plan.n_epochs * math.ceil(plan.num_train_rows / plan.batch_size)
    assert 0 <= plan.warmup_steps < max(plan.total_steps, 1)
    assert 1 <= plan.eval_every_steps <= plan.total_steps
    assert 0 <= plan.eval_rows <= plan.num_valid_rows
    assert (plan.eval_rows == 0) == (plan.num_valid_rows == 0)
    assert 0 < plan.learning_rate <= 3e-3 + 1e-12
    assert plan.num_train_rows + num_held_out_rows(num_rows, split) == num_rows
    fields = set(plan.__struct_fields__)
    assert set(plan.reasons) <= fields
    assert all(reason.endswith(".") and len(reason) < 160 for reason in plan.reasons.values())
    assert {"n_epochs", "batch_size", "learning_rate", "learning_rate_multiplier", "warmup_steps"} <= set(plan.reasons)

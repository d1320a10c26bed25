"""Resolve every "auto" to a number with a written reason. Pure: the same input gives the same plan.

Sources. Epochs: the estimator of OpenAI's cookbook ("Data preparation and analysis for chat model fine-tuning").
Batch size: OpenAI's rule of 0.2 % of the examples, bounded so that a small set still gets enough optimiser steps.
Learning rate: LoRA wants about ten times the rate of full fine-tuning, fifteen times in runs under a hundred steps
("LoRA Without Regret", Schulman et al., 2025). Not covered: rates of models that are tuned by anything but AdamW.
"""

import math

import msgspec

from tunesmith.data.split import num_held_out_rows
from tunesmith.jobs.request import Auto, JobExtra

TARGET_EPOCHS = 3
MIN_TARGET_EXAMPLES = 100
MAX_TARGET_EXAMPLES = 25_000
MAX_AUTO_EPOCHS = 25
BATCH_SHARE = 0.002
MIN_AUTO_BATCH = 4
MAX_AUTO_BATCH = 32
MIN_STEPS = 20
WARMUP_SHARE = 0.06
EVAL_EVERY_STEPS = 10
MIN_EVALUATIONS = 5
MIN_EVAL_ROWS = 8

REFERENCE_PARAMETERS = 135e6
REFERENCE_FULL_RATE = 2e-4
LORA_FACTOR = 10
LORA_FACTOR_SHORT = 15
SHORT_RUN_STEPS = 100
DEFAULT_LORA_R = 16
# alpha = 2 r, PEFT's most used scale.
LORA_ALPHA_PER_R = 2.0


class PlanInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan depends on. ``num_rows`` counts the training file, held-out rows included."""

    n_epochs: int | Auto
    batch_size: int | Auto
    learning_rate_multiplier: float | Auto
    extra: JobExtra
    num_rows: int
    num_tokens: int
    num_valid_rows: int
    """Rows of the validation file; 0 without one."""
    num_parameters: int
    context_tokens: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Every number of a run; ``reasons`` says, by field name, why it is what it is."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    learning_rate: float
    warmup_steps: int
    total_steps: int
    eval_every_steps: int
    eval_rows: int
    lora_r: int
    lora_alpha: float
    max_row_tokens: int
    num_train_rows: int
    num_valid_rows: int
    reasons: dict[str, str]


def make_plan(given: PlanInput) -> Plan:
    """The complete plan of a run over ``given.num_rows`` rows."""
    reasons: dict[str, str] = {}
    num_valid = num_held_out_rows(given.num_rows, given.extra.validation_split) or given.num_valid_rows
    num_train = given.num_rows - num_held_out_rows(given.num_rows, given.extra.validation_split)
    n_epochs, reasons["n_epochs"] = _epochs(given.n_epochs, num_train)
    batch_size, reasons["batch_size"] = _batch_size(given.batch_size, num_train, n_epochs)
    total_steps = n_epochs * math.ceil(num_train / batch_size)
    multiplier, reasons["learning_rate_multiplier"] = _multiplier(given.learning_rate_multiplier)
    rate, reasons["learning_rate"] = _learning_rate(given, total_steps, multiplier)
    warmup_steps = math.ceil(WARMUP_SHARE * total_steps) if total_steps > 1 else 0
    reasons["warmup_steps"] = f"{WARMUP_SHARE:.0%} of {total_steps} steps."
    eval_every, reasons["eval_every_steps"] = _eval_every(total_steps)
    eval_rows = min(num_valid, max(MIN_EVAL_ROWS, batch_size))
    reasons["eval_rows"] = f"{eval_rows} of {num_valid} validation rows." if num_valid else "No validation rows."
    lora_r, lora_alpha, reasons["lora_r"] = _lora(given.extra)
    max_row_tokens, reasons["max_row_tokens"] = _max_row_tokens(given)
    return Plan(
        n_epochs=n_epochs,
        batch_size=batch_size,
        learning_rate_multiplier=multiplier,
        learning_rate=rate,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
        eval_every_steps=eval_every,
        eval_rows=eval_rows,
        lora_r=lora_r,
        lora_alpha=lora_alpha,
        max_row_tokens=max_row_tokens,
        num_train_rows=num_train,
        num_valid_rows=num_valid,
        reasons=reasons,
    )


def full_learning_rate(num_parameters: int) -> float:
    """Rate of full fine-tuning: 2e-4 up to 135 M parameters, then falling with the square root of the size.

    It passes 2.8e-5 at 7 B and 8.8e-6 at 70 B, in the middle of what model makers publish for AdamW.
    """
    return REFERENCE_FULL_RATE * min(1.0, math.sqrt(REFERENCE_PARAMETERS / max(num_parameters, 1)))


def _epochs(asked: int | Auto, num_rows: int) -> tuple[int, str]:
    if asked != "auto":
        return asked, "As asked."
    if TARGET_EPOCHS * num_rows < MIN_TARGET_EXAMPLES:
        epochs = min(MAX_AUTO_EPOCHS, MIN_TARGET_EXAMPLES // num_rows)
        return epochs, f"{num_rows} rows are few: enough passes to see about {MIN_TARGET_EXAMPLES} examples."
    if TARGET_EPOCHS * num_rows > MAX_TARGET_EXAMPLES:
        epochs = max(1, MAX_TARGET_EXAMPLES // num_rows)
        return epochs, f"{num_rows:,} rows are many: no more passes than about {MAX_TARGET_EXAMPLES:,} examples."
    return TARGET_EPOCHS, f"{TARGET_EPOCHS} passes suit {num_rows:,} rows."


def _batch_size(asked: int | Auto, num_rows: int, n_epochs: int) -> tuple[int, str]:
    if asked != "auto":
        if asked > num_rows:
            return num_rows, f"{asked} was asked, but there are {num_rows} rows."
        return asked, "As asked."
    share = min(max(round(BATCH_SHARE * num_rows), MIN_AUTO_BATCH), MAX_AUTO_BATCH)
    for_steps = max(1, num_rows * n_epochs // MIN_STEPS)
    if for_steps < share:
        return min(for_steps, num_rows), f"{num_rows} rows are few: small enough for about {MIN_STEPS} steps."
    bounds = f"between {MIN_AUTO_BATCH} and {MAX_AUTO_BATCH}"
    return min(share, num_rows), f"{BATCH_SHARE:.1%} of {num_rows:,} rows, {bounds}."


def _multiplier(asked: float | Auto) -> tuple[float, str]:
    return (1.0, "The rule's own rate.") if asked == "auto" else (float(asked), "As asked.")


def _learning_rate(given: PlanInput, total_steps: int, multiplier: float) -> tuple[float, str]:
    if given.extra.learning_rate is not None:
        rate = given.extra.learning_rate
        return rate * multiplier, f"{rate:.2g} as asked, times the multiplier {multiplier:g}."
    full = full_learning_rate(given.num_parameters)
    size = f"a model of {given.num_parameters / 1e6:,.0f} M parameters"
    if given.extra.training == "full":
        return full * multiplier, f"{full:.2g} for {size}, times the multiplier {multiplier:g}."
    factor = LORA_FACTOR_SHORT if total_steps < SHORT_RUN_STEPS else LORA_FACTOR
    run = f"a short run of {total_steps} steps" if total_steps < SHORT_RUN_STEPS else f"{total_steps:,} steps"
    return (
        full * factor * multiplier,
        f"LoRA takes {factor} times the full rate {full:.2g} of {size} in {run}, times the multiplier {multiplier:g}.",
    )


def _eval_every(total_steps: int) -> tuple[int, str]:
    if total_steps >= EVAL_EVERY_STEPS * MIN_EVALUATIONS:
        return EVAL_EVERY_STEPS, f"Every {EVAL_EVERY_STEPS} steps."
    return max(1, total_steps // MIN_EVALUATIONS), f"A short run is measured about {MIN_EVALUATIONS} times."


def _lora(extra: JobExtra) -> tuple[int, float, str]:
    r = extra.lora_r or DEFAULT_LORA_R
    alpha = extra.lora_alpha or LORA_ALPHA_PER_R * r
    return r, alpha, "As asked." if extra.lora_r else f"{DEFAULT_LORA_R} has room for a style and a vocabulary."


def _max_row_tokens(given: PlanInput) -> tuple[int, str]:
    asked = given.extra.max_row_tokens
    if asked is None or asked > given.context_tokens:
        return given.context_tokens, "The model's context."
    return asked, "As asked."

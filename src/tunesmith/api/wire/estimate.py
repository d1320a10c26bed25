"""Estimates, costs and comparisons. The documents are those of ``metering``; amounts of money are decimal texts."""

from dataclasses import fields
from decimal import Decimal
from typing import Annotated, Literal, Self

import msgspec
from pydantic import Field

from tunesmith.api.wire.shape import RequestBody, ResponseBody, WholeBody
from tunesmith.metering.actual import Actual
from tunesmith.metering.compare import HOURS_PER_MONTH, CompareRequest, Contender
from tunesmith.metering.estimate import Quote
from tunesmith.store.tables import JobRow

Price = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False, max_digits=15)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000_000)]


class ContenderBody(RequestBody):
    """One side of a comparison. Prices left out are looked up by the model's name."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    prompt_tokens: Tokens
    input_per_million_tokens: Price | None = None
    output_per_million_tokens: Price | None = None
    hosting_per_hour: Price | None = None
    hosting_hours_per_month: Annotated[Decimal, Field(ge=0, le=744, allow_inf_nan=False, max_digits=15)] = (
        HOURS_PER_MONTH
    )
    training_cost: Price = Decimal(0)
    currency: Annotated[str, Field(min_length=1, max_length=8)] | None = None

    @property
    def contender(self) -> Contender:
        return Contender(**{field.name: getattr(self, field.name) for field in fields(Contender)})


class CompareBody(WholeBody):
    """POST /api/estimate/compare."""

    tuned: ContenderBody
    base: ContenderBody
    message_tokens: Tokens
    answer_tokens: Tokens
    calls_per_month: Tokens | None = None
    months: Annotated[int, Field(ge=1, le=120)] = 12

    @property
    def request(self) -> CompareRequest:
        return CompareRequest(
            tuned=self.tuned.contender,
            base=self.base.contender,
            message_tokens=self.message_tokens,
            answer_tokens=self.answer_tokens,
            calls_per_month=self.calls_per_month,
            months=self.months,
        )


class JobCost(ResponseBody):
    """What a job was expected to take, and what it took."""

    object: Literal["fine_tuning.job.cost"] = "fine_tuning.job.cost"
    job_id: str
    status: str
    quote: Quote | None
    """Null before the files are checked, and where no quote could be made: the job's events say why."""
    actual: Actual | None
    """Null until the job has ended and its trainer is gone."""

    @classmethod
    def of(cls, row: JobRow) -> Self:
        return cls(
            job_id=row.id,
            status=row.status,
            quote=None if row.quote is None else msgspec.convert(row.quote, Quote),
            actual=None if row.actual is None else msgspec.convert(row.actual, Actual),
        )

"""POST /api/data/generate: the request, and a generation as it is shown."""

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import Field, SecretStr

from tunesmith.api.wire.shape import RequestBody, ResponseBody, WholeBody
from tunesmith.data.generate.request import LENGTHS, MAX_AMOUNT, MAX_ROWS, TONES, Length, plain
from tunesmith.data.generate.view import View

Name = Annotated[str, Field(min_length=1, max_length=512)]
Names = Annotated[tuple[Name, ...], Field(max_length=1_000)]
Key = Annotated[SecretStr, Field(min_length=1, max_length=4_096)]


_AMOUNT: Any = {"le": MAX_AMOUNT, "allow_inf_nan": False, "max_digits": 15}
Cost = Annotated[Decimal, Field(gt=0, **_AMOUNT)]
"""A JSON number or text."""


class TeacherBody(RequestBody):
    """Without ``base_url`` this server answers, under the caller's own key. Keys are kept in memory only."""

    model: Name
    base_url: Annotated[str, Field(max_length=2_048)] | None = None
    api_key: Key | None = None


class PricesBody(RequestBody):
    """Per million tokens."""

    input: Annotated[Decimal, Field(ge=0, **_AMOUNT)] = Decimal(0)
    output: Annotated[Decimal, Field(ge=0, **_AMOUNT)] = Decimal(0)


class GenerateBody(WholeBody):
    """What ``data.generate.request.GenerateRequest`` holds, with files by their ids."""

    teacher: TeacherBody
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    seeds: Names = ()
    documents: Names = ()
    topics: Names = ()
    tones: Names = TONES
    lengths: tuple[Length, ...] = LENGTHS
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_cost: Cost | None = None
    prices: PricesBody | None = None
    """Left out, they are this server's own where it is the teacher, and else 0."""
    max_candidates: Annotated[int, Field(ge=1)] | None = None
    max_answer_tokens: Annotated[int, Field(ge=1)] = 512
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0


class ResumeBody(WholeBody):
    """The teacher's key again, as it was not kept; and caps to be changed."""

    api_key: Key | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_cost: Cost | None = None


class Problem(ResponseBody):
    code: str | None
    message: str
    param: str | None


class UsageShown(ResponseBody):
    num_calls: int
    num_lost_calls: int
    num_estimated_calls: int
    prompt_tokens: int
    completion_tokens: int
    lost_tokens: int
    total_tokens: int
    cost: str
    """A decimal number as text, in the currency of the prices."""


class PricesShown(ResponseBody):
    """Per million tokens, as decimal texts; ``currency`` is null where the request gave the prices."""

    input: str
    output: str
    currency: str | None


class DropSampleShown(ResponseBody):
    slot: int
    what: str
    prompt: str
    answer: str


class DropGroupShown(ResponseBody):
    rule: str
    title: str
    count: int
    samples: list[DropSampleShown]


class SkippedShown(ResponseBody):
    rule: str
    reason: str


class GenerationReport(ResponseBody):
    version: int
    stopped_by: str
    num_rows_wanted: int
    num_rows: int
    num_candidates: int
    num_unfinished: int
    num_surplus: int
    dropped: list[DropGroupShown]
    skipped: list[SkippedShown]
    usage: UsageShown
    teacher_model: str
    seed: int
    num_seed_rows: int
    num_passages: int


class Generation(ResponseBody):
    """A generation; every key is always there. ``file`` is the finished data set."""

    id: str
    object: Literal["data.generation"] = "data.generation"
    created_at: int
    finished_at: int | None
    status: Literal["running", "interrupted", "succeeded", "failed", "cancelled"]
    stopped_by: Literal["rows", "candidates", "tokens", "cost"] | None
    error: Problem | None
    rows: int
    num_complete: int
    num_planned: int
    progress: float
    """Share of the planned candidates that are made; a resumed run plans its first rounds again, which are done."""
    eta_s: float | None
    teacher_model: str
    teacher_url: str | None
    seed: int
    max_tokens: int | None
    max_cost: str | None
    prices: PricesShown
    usage: UsageShown
    file: str | None
    report: GenerationReport | None

    @classmethod
    def of(cls, view: View) -> Self:
        request = view.request
        report = view.report
        return cls(
            id=request.id,
            created_at=request.created_at,
            finished_at=view.finished_at,
            status=view.status,
            stopped_by=view.stopped_by,
            error=Problem(**msgspec.structs.asdict(view.error)) if view.error else None,
            rows=request.rows,
            num_complete=view.num_complete,
            num_planned=view.num_planned,
            progress=round(min(1.0, view.num_complete / max(1, view.num_planned)), 4),
            eta_s=None if view.eta_s is None else round(view.eta_s, 1),
            teacher_model=request.teacher_model,
            teacher_url=request.teacher_url,
            seed=request.seed,
            max_tokens=request.caps.max_tokens,
            max_cost=None if request.caps.max_cost is None else plain(request.caps.max_cost),
            prices=PricesShown(
                input=plain(request.prices.input),
                output=plain(request.prices.output),
                currency=request.prices.currency,
            ),
            usage=UsageShown.model_validate(msgspec.to_builtins(view.usage)),
            file=view.file_id,
            report=None if report is None else GenerationReport.model_validate(msgspec.to_builtins(report)),
        )


class DeletedGeneration(ResponseBody):
    id: str
    object: Literal["data.generation"] = "data.generation"
    deleted: bool = True


class GenerationList(ResponseBody):
    object: Literal["list"] = "list"
    data: list[Generation]
    has_more: bool

"""/api/estimate, /api/jobs/{id}/cost and /api/prices: what a job will take, what it took, and what it is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from tunesmith.api.deps import ServicesDep
from tunesmith.api.openai.jobs import job_request
from tunesmith.api.wire.estimate import CompareBody, JobCost
from tunesmith.api.wire.jobs import CreateJob
from tunesmith.api.wire.schema import json_response
from tunesmith.catalog.models import list_base_models
from tunesmith.core.errors import InvalidRequest, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.settings import Settings
from tunesmith.metering.compare import Comparison, compare
from tunesmith.metering.estimate import Quote
from tunesmith.metering.prices import PRICES_FILE, PriceTable, load_prices

log = get_logger(__name__)

router = APIRouter(prefix="/api", tags=["costs"])


@router.post("/estimate")
def estimate_job(body: CreateJob, services: ServicesDep) -> Quote:
    """What a job of this body will take. Data that would fail the job is a 400 that names its line.

    Where ``prices.json`` cannot be used, cost and prices are null, and ``no_prices`` says why.
    """
    return services.jobs.estimate(job_request(body))


@router.post("/estimate/compare")
def compare_models(body: CompareBody, services: ServicesDep) -> Comparison:
    """A small tuned model against a larger base model with a long prompt."""
    with _owners_fault(services.settings):
        return compare(body.request, load_prices(services.settings), list_base_models(services.settings))


@router.get("/jobs/{job_id}/cost")
def retrieve_job_cost(job_id: str, services: ServicesDep) -> JobCost:
    """Quote and actual side by side."""
    return JobCost.of(services.jobs.get(job_id))


@router.get(
    "/prices",
    response_class=Response,
    responses={200: json_response(PriceTable, "Amounts are decimal numbers as texts.")},
)
def list_prices(services: ServicesDep) -> Response:
    """The prices that hold here, and those that others publish, in the form of ``prices.json``."""
    with _owners_fault(services.settings):
        return Response(msgspec.json.encode(load_prices(services.settings)), media_type="application/json")


@contextmanager
def _owners_fault(settings: Settings) -> Iterator[None]:
    """A table of prices that cannot be used is not the fault of who asks, and its place none of their business."""
    try:
        yield
    except InvalidRequest as error:
        if error.code != "invalid_prices":
            raise
        log.error("%s: %s", settings.home / PRICES_FILE, error.message)
        raise TunesmithError(error.message, code=error.code, mend=error.mend) from None

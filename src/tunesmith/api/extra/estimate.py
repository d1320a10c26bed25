"""/api/estimate, /api/jobs/{id}/cost and /api/prices: what a job will take, what it took, and what it is worth."""

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from tunesmith.api.deps import ServicesDep
from tunesmith.api.openai.jobs import job_request
from tunesmith.api.wire.estimate import CompareBody, JobCost
from tunesmith.api.wire.jobs import CreateJob
from tunesmith.metering.compare import Comparison, compare
from tunesmith.metering.estimate import Quote
from tunesmith.metering.prices import load_prices

router = APIRouter(prefix="/api", tags=["costs"])


@router.post("/estimate")
def estimate_job(body: CreateJob, services: ServicesDep) -> Quote:
    """What a job of this body will take. Data that would fail the job is a 400 that names its line."""
    return services.jobs.estimate(job_request(body))


@router.post("/estimate/compare")
def compare_models(body: CompareBody, services: ServicesDep) -> Comparison:
    """A small tuned model against a larger base model with a long prompt."""
    return compare(body.request, load_prices(services.settings))


@router.get("/jobs/{job_id}/cost")
def retrieve_job_cost(job_id: str, services: ServicesDep) -> JobCost:
    """Quote and actual side by side."""
    return JobCost.of(services.jobs.get(job_id))


@router.get("/prices")
def list_prices(services: ServicesDep) -> Response:
    """The prices that hold here, and those that others publish, in the form of ``prices.json``."""
    return Response(msgspec.json.encode(load_prices(services.settings)), media_type="application/json")

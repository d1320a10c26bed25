"""/v1/fine_tuning/jobs. Lists of events and checkpoints answer POST too: Microsoft's published examples use it."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request

from tunesmith.api.deps import Services, ServicesDep
from tunesmith.api.wire.jobs import CheckpointList, CreateJob, Event, EventList, Job, JobList
from tunesmith.core.errors import InvalidRequest
from tunesmith.jobs.service import JobRequest
from tunesmith.store.tables import JobRow

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])

Limit = Annotated[int, Query(ge=1, le=1_000)]


@router.post("")
def create_job(body: CreateJob, services: ServicesDep) -> Job:
    """Queue a job. What is wrong with the *data* fails the job later, naming its line: clients retry a 400 for ever."""
    return _shown(services, services.jobs.create(job_request(body)))


def job_request(body: CreateJob) -> JobRequest:
    """What the body asks for. Raises InvalidRequest for what OpenAI's API has and this server does not."""
    _require_offered(body)
    chosen = body.supervised
    return JobRequest(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        n_epochs="auto" if chosen.n_epochs is None else chosen.n_epochs,
        batch_size="auto" if chosen.batch_size is None else chosen.batch_size,
        learning_rate_multiplier=(
            "auto" if chosen.learning_rate_multiplier is None else chosen.learning_rate_multiplier
        ),
        suffix=body.suffix,
        seed=body.seed,
        metadata=body.metadata,
        extra=body.tunesmith or {},
    )


@router.get("")
def list_jobs(request: Request, services: ServicesDep, after: str | None = None, limit: Limit = 20) -> JobList:
    """Newest first. ``metadata[key]=value`` keeps the jobs that carry the pair, ``metadata=null`` those without any."""
    rows, has_more = services.jobs.list(after=after, limit=limit, metadata=_metadata_filter(request))
    return JobList(data=[_shown(services, row) for row in rows], has_more=has_more)


@router.get("/{job_id}")
def retrieve_job(job_id: str, services: ServicesDep) -> Job:
    return _shown(services, services.jobs.get(job_id))


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, services: ServicesDep) -> Job:
    return _shown(services, services.jobs.cancel(job_id))


@router.post("/{job_id}/pause")
def pause_job(job_id: str, services: ServicesDep) -> Job:
    return _shown(services, services.jobs.pause(job_id))


@router.post("/{job_id}/resume")
def resume_job(job_id: str, services: ServicesDep) -> Job:
    return _shown(services, services.jobs.resume(job_id))


@router.post("/{job_id}/events", include_in_schema=False)
@router.get("/{job_id}/events")
def list_events(job_id: str, services: ServicesDep, after: str | None = None, limit: Limit = 20) -> EventList:
    rows, has_more = services.jobs.events(job_id, after=after, limit=limit)
    return EventList(data=[Event.of(row) for row in rows], has_more=has_more)


@router.post("/{job_id}/checkpoints", include_in_schema=False)
@router.get("/{job_id}/checkpoints")
def list_checkpoints(job_id: str, services: ServicesDep, after: str | None = None, limit: Limit = 10) -> CheckpointList:
    rows, has_more = services.jobs.checkpoints(job_id, after=after, limit=limit)
    return CheckpointList.of(rows, has_more)


def _shown(services: Services, row: JobRow) -> Job:
    return Job.of(row, services.settings.organization)


def _require_offered(body: CreateJob) -> None:
    if body.method is not None and body.method.type != "supervised":
        raise InvalidRequest(
            f"Fine-tuning with the method '{body.method.type}' is not offered yet.",
            param="method.type",
            code="unsupported_method",
            mend="Use the method 'supervised'.",
        )
    if body.integrations:
        raise InvalidRequest(
            "Integrations are not offered yet.",
            param="integrations",
            code="unsupported_integration",
            mend="Leave them out; the job's events and its results file hold every metric.",
        )


def _metadata_filter(request: Request) -> dict[str, str] | None:
    """The pairs of ``metadata[key]=value``; empty for ``metadata=null``; None when nothing is filtered."""
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        pair = re.fullmatch(r"metadata\[(.+)\]", name)
        if pair:
            wanted[pair.group(1)] = value
        elif name == "metadata" and value != "null":
            raise InvalidRequest("Filter with metadata[key]=value, or with metadata=null.", param="metadata")
    return wanted if wanted or "metadata" in request.query_params else None

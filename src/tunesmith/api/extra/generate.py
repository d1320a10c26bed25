"""/api/data/generate: a data set made by a teacher, from seed rows, documents or topics."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import SecretStr

from tunesmith.api.deps import Services, ServicesDep
from tunesmith.api.extra.generations import TeacherAccess
from tunesmith.api.wire.generate import DeletedGeneration, GenerateBody, Generation, GenerationList, ResumeBody
from tunesmith.core.clock import unix_now_s
from tunesmith.core.ids import new_id
from tunesmith.data.generate.request import (
    Caps,
    GenerateRequest,
    Prices,
    default_max_candidates,
    read_request,
    require_key_text,
)
from tunesmith.metering.prices import load_prices

router = APIRouter(prefix="/api/data/generate", tags=["data"])


@router.post("", status_code=202)
def create_generation(body: GenerateBody, request: Request, services: ServicesDep) -> Generation:
    """Start a generation. Its finished file can train a job at once."""
    access = _access(request, body.teacher.api_key, is_own=body.teacher.base_url is None)
    return _shown(services, services.generations.create(_request_of(body, services), access))


@router.get("")
def list_all(
    services: ServicesDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> GenerationList:
    """Newest first."""
    views, has_more = services.generations.list_page(after, limit)
    return GenerationList(data=[Generation.of(view) for view in views], has_more=has_more)


@router.get("/{generation_id}")
def retrieve_generation(generation_id: str, services: ServicesDep) -> Generation:
    """Progress, time left and money spent while it runs; the report and the file at its end."""
    return _shown(services, services.generations.find(generation_id))


@router.delete("/{generation_id}")
def delete_generation(generation_id: str, services: ServicesDep) -> DeletedGeneration:
    """Forget it, with its copies of seeds and documents and every answer. The file that it has become stays."""
    services.generations.delete(generation_id)
    return DeletedGeneration(id=generation_id)


@router.post("/{generation_id}/cancel")
def cancel_generation(generation_id: str, services: ServicesDep) -> Generation:
    """Stop when the calls in flight are answered. It can be resumed."""
    return _shown(services, services.generations.cancel(generation_id))


@router.post("/{generation_id}/resume", status_code=202)
def resume_generation(
    generation_id: str, request: Request, services: ServicesDep, body: ResumeBody | None = None
) -> Generation:
    """Go on where it was: after a restart of the server, a cancel, a failure, or a cap that is raised here."""
    body = body or ResumeBody()
    kept = read_request(services.generations.find(generation_id))
    access = _access(request, body.api_key, is_own=kept.teacher_url is None)
    caps = Caps(max_tokens=body.max_tokens, max_cost=body.max_cost)
    return _shown(services, services.generations.resume(generation_id, caps, access))


def _shown(services: Services, folder: Path) -> Generation:
    return Generation.of(services.generations.views.of(folder))


def _access(request: Request, key: SecretStr | None, *, is_own: bool) -> TeacherAccess:
    """This server is asked under the caller's own key: what the caller may not do, the run may not either."""
    host, port = request.scope["server"]
    shown_host = f"[{host}]" if ":" in host else host
    given = key.get_secret_value() if key else None
    if given is not None:
        require_key_text(given)
    caller = request.headers.get("authorization", "").partition(" ")[2].strip()
    return TeacherAccess(api_key=caller if is_own else given, own_url=f"http://{shown_host}:{port}/v1")


def _prices(body: GenerateBody, services: Services) -> Prices:
    """Those of the request; else, where this server is the teacher, its own prices of that model.

    Raises NotFound for a model that this server does not have.
    """
    if body.prices is not None:
        return Prices(input=body.prices.input, output=body.prices.output)
    if body.teacher.base_url is not None:
        return Prices()
    table = load_prices(services.settings)
    price = table.price_of(services.registry.resolve(body.teacher.model).base_model)
    return Prices(input=price.input_per_million_tokens, output=price.output_per_million_tokens, currency=table.currency)


def _request_of(body: GenerateBody, services: Services) -> GenerateRequest:
    return GenerateRequest(
        id=new_id("gen-"),
        created_at=unix_now_s(),
        rows=body.rows,
        max_candidates=body.max_candidates or default_max_candidates(body.rows),
        seed=body.seed,
        teacher_model=body.teacher.model,
        teacher_url=body.teacher.base_url,
        system=body.system,
        topics=body.topics,
        tones=body.tones,
        lengths=body.lengths,
        max_answer_tokens=body.max_answer_tokens,
        concurrency=body.concurrency,
        caps=Caps(max_tokens=body.max_tokens, max_cost=body.max_cost),
        prices=_prices(body, services),
        seed_files=body.seeds,
        documents=body.documents,
    )

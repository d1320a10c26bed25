"""/api/data/generate: a data set made by a teacher, from seed rows, documents or topics."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import SecretStr

from tunesmith.api.deps import ServicesDep
from tunesmith.api.extra.generations import TeacherAccess
from tunesmith.api.wire.generate import GenerateBody, Generation, GenerationList, ResumeBody
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
from tunesmith.data.generate.view import find_generation, list_generations, view_generation

router = APIRouter(prefix="/api/data/generate", tags=["data"])


@router.post("", status_code=202)
def create_generation(body: GenerateBody, request: Request, services: ServicesDep) -> Generation:
    """Start a generation. Its finished file can train a job at once."""
    access = _access(request, body.teacher.api_key, is_own=body.teacher.base_url is None)
    return _shown(services.generations.create(_request_of(body), access))


@router.get("")
def list_all(services: ServicesDep, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> GenerationList:
    """Newest first."""
    folders = sorted(list_generations(services.settings), key=_age)
    return GenerationList(data=[_shown(folder) for folder in folders[:limit]], has_more=len(folders) > limit)


@router.get("/{generation_id}")
def retrieve_generation(generation_id: str, services: ServicesDep) -> Generation:
    """Progress, time left and money spent while it runs; the report and the file at its end."""
    return _shown(find_generation(services.settings, generation_id))


@router.post("/{generation_id}/cancel")
def cancel_generation(generation_id: str, services: ServicesDep) -> Generation:
    """Stop when the calls in flight are answered. It can be resumed."""
    return _shown(services.generations.cancel(generation_id))


@router.post("/{generation_id}/resume", status_code=202)
def resume_generation(
    generation_id: str, request: Request, services: ServicesDep, body: ResumeBody | None = None
) -> Generation:
    """Go on where it was: after a restart of the server, a cancel, a failure, or a cap that is raised here."""
    body = body or ResumeBody()
    kept = read_request(find_generation(services.settings, generation_id))
    access = _access(request, body.api_key, is_own=kept.teacher_url is None)
    caps = Caps(max_tokens=body.max_tokens, max_cost=body.max_cost)
    return _shown(services.generations.resume(generation_id, caps, access))


def _shown(folder: Path) -> Generation:
    return Generation.of(view_generation(folder))


def _age(folder: Path) -> tuple[int, str]:
    return -read_request(folder).created_at, folder.name


def _access(request: Request, key: SecretStr | None, *, is_own: bool) -> TeacherAccess:
    """This server is asked under the caller's own key: what the caller may not do, the run may not either."""
    host, port = request.scope["server"]
    shown_host = f"[{host}]" if ":" in host else host
    given = key.get_secret_value() if key else None
    if given is not None:
        require_key_text(given)
    caller = request.headers.get("authorization", "").partition(" ")[2].strip()
    return TeacherAccess(api_key=caller if is_own else given, own_url=f"http://{shown_host}:{port}/v1")


def _request_of(body: GenerateBody) -> GenerateRequest:
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
        prices=Prices(input=body.prices.input, output=body.prices.output),
        seed_files=body.seeds,
        documents=body.documents,
    )

"""/health and /ready: the only two addresses that need no key."""

from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Services, ServicesDep
from tunesmith.catalog.models import is_installed, list_base_models
from tunesmith.core.errors import TunesmithError, Unavailable

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process lives. Asks nobody else, so that a slow database does not get the server restarted."""
    return {"status": "ok"}


@router.get("/ready")
def ready(services: ServicesDep) -> Response:
    """200 when jobs and chats can be served, else 503; ``checks`` says ``ok`` or the reason for each part."""
    parts: dict[str, Callable[[Services], None]] = {
        "database": _check_database,
        "blobs": _check_blobs,
        "base_model": _check_base_model,
    }
    checks = {name: _outcome(check, services) for name, check in parts.items()}
    is_ready = all(outcome == "ok" for outcome in checks.values())
    body = {"status": "ready" if is_ready else "not_ready", "checks": checks}
    return JSONResponse(body, status_code=200 if is_ready else 503)


def _outcome(check: Callable[[Services], None], services: Services) -> str:
    try:
        check(services)
    except (TunesmithError, OSError) as error:
        return str(error)
    return "ok"


def _check_database(services: Services) -> None:
    services.database.ping()


def _check_blobs(services: Services) -> None:
    """Write a byte and forget it: a full disk or a bucket without permission shows here, not in an upload."""
    writer = services.blobs.open_writer()
    try:
        writer.write(b"x")
    finally:
        writer.abort()


def _check_base_model(services: Services) -> None:
    if not any(is_installed(services.settings, model.id) for model in list_base_models(services.settings)):
        raise Unavailable("No base model is installed.", mend="Start the server with `tunesmith serve`.")

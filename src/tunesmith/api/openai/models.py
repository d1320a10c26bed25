"""/v1/models. A model's name holds colons and may hold slashes, so it is the whole rest of the path."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from tunesmith.api.deps import Services, ServicesDep
from tunesmith.api.wire.models import Model, ModelList
from tunesmith.api.wire.shape import Deleted
from tunesmith.catalog.models import BaseModel, find_base_model, is_installed, list_base_models
from tunesmith.core.errors import Forbidden, NotFound
from tunesmith.store.repos.checkpoints import CheckpointRepo
from tunesmith.store.repos.models import ModelRepo
from tunesmith.store.tables import ModelRow

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(services: ServicesDep) -> ModelList:
    """Every name that answers a chat: installed base models, tuned models and checkpoints, newest first."""
    bases = [model for model in list_base_models(services.settings) if is_installed(services.settings, model.id)]
    with services.database.reading() as session:
        tuned = ModelRepo(session).list_all()
    return ModelList(data=[_of_row(row) for row in tuned] + [_of_base(model) for model in bases])


@router.get("/{name:path}")
def retrieve_model(name: str, services: ServicesDep) -> Model:
    base = _find_base(services, name)
    if base is not None:
        return _of_base(base)
    with services.database.reading() as session:
        row = ModelRepo(session).get(name)
    if row is None:
        raise _no_such_model(name)
    return _of_row(row)


@router.delete("/{name:path}")
async def delete_model(name: str, services: ServicesDep) -> Deleted:
    """A tuned model or a checkpoint no longer answers; its files stay with its job."""
    await run_in_threadpool(_mark_deleted, services, name)
    await services.router.forget(name)
    return Deleted(id=name, object="model")


def _mark_deleted(services: Services, name: str) -> None:
    if _find_base(services, name) is not None:
        raise Forbidden(f"The model '{name}' is a base model, and base models cannot be deleted.", param="model")
    with services.database.session() as session:
        row = ModelRepo(session).get(name)
        if row is None:
            raise _no_such_model(name)
        ModelRepo(session).delete(name)
        if row.kind == "checkpoint" and row.job_id is not None:
            CheckpointRepo(session).mark_deleted(row.job_id, [row.checkpoint_step])


def _find_base(services: Services, name: str) -> BaseModel | None:
    base = find_base_model(services.settings, name)
    return base if base is not None and is_installed(services.settings, base.id) else None


def _no_such_model(name: str) -> NotFound:
    return NotFound(f"The model '{name}' does not exist", code="model_not_found", param="model")


def _of_base(model: BaseModel) -> Model:
    return Model(id=model.id, created=model.created, owned_by="system")


def _of_row(row: ModelRow) -> Model:
    return Model(id=row.id, created=row.created_at, owned_by=row.owned_by)

"""The application: its parts put together, and their life from start to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool

from tunesmith import __version__
from tunesmith.api import health
from tunesmith.api.deps import Services
from tunesmith.api.errors import add_error_handlers, documented_errors
from tunesmith.api.extra import datasets, derived, estimate, generate
from tunesmith.api.extra.data_files import DataFiles
from tunesmith.api.extra.data_tasks import DataTasks
from tunesmith.api.extra.generations import Generations
from tunesmith.api.extra.leftovers import sweep
from tunesmith.api.extra.reports import Reports
from tunesmith.api.gate import Gate
from tunesmith.api.keys import KeyCheck, make_first_key
from tunesmith.api.openai import chat, files, jobs, models
from tunesmith.core.settings import Settings
from tunesmith.jobs.service import JobService
from tunesmith.jobs.supervisor import Supervisor
from tunesmith.serving.registry import Registry
from tunesmith.serving.router import Router
from tunesmith.store.blobs import make_blobs
from tunesmith.store.db import Database
from tunesmith.store.repos.files import FileRepo


class HasRouter(Protocol):
    router: APIRouter


PARTS: tuple[tuple[HasRouter, tuple[int, ...]], ...] = (
    (files, (413,)),
    (jobs, (409,)),
    (models, (403,)),
    (chat, (429, 503)),
    (generate, (409, 429)),
    (estimate, ()),
    (datasets, (503,)),
    (derived, (409, 429, 503)),
)
"""The calls, and with which errors beside those of every call they are documented."""


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. Nothing is opened before its lifespan starts.

    While it runs, ``app.state.first_key`` holds the text of the first API key if this start made it, else None; the
    file ``first_key`` in the home keeps it. There is no CORS: browsers of other origins are kept out.
    """
    app = FastAPI(title="Tunesmith", version=__version__, docs_url=None, redoc_url=None, lifespan=_lifespan)
    app.state.settings = settings
    app.state.first_key = None
    app.add_middleware(Gate, settings=settings)
    add_error_handlers(app)
    app.include_router(health.router)
    for part, statuses in PARTS:
        app.include_router(part.router, responses=documented_errors(*statuses))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    services = await run_in_threadpool(_open, settings)
    app.state.first_key = await run_in_threadpool(make_first_key, services.database, settings.home)
    app.state.doorkeeper = KeyCheck(services.database)
    app.state.services = services
    supervisor = Supervisor(settings, services.database, services.blobs, forget=services.forget_content)
    supervisor.start()
    try:
        await services.router.start()
        yield
    finally:
        await run_in_threadpool(services.generations.stop)
        await run_in_threadpool(services.reports.stop)
        await services.router.stop()
        await run_in_threadpool(supervisor.stop)
        services.database.close()


def _open(settings: Settings) -> Services:
    settings.home.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    database.migrate()
    blobs = make_blobs(settings)
    registry = Registry(settings, database)
    data_tasks = DataTasks()
    services = Services(
        settings=settings,
        database=database,
        blobs=blobs,
        jobs=JobService(settings, database, blobs),
        registry=registry,
        router=Router(settings, registry),
        generations=Generations(settings, database, blobs),
        data_files=DataFiles(settings, database, blobs, registry),
        data_tasks=data_tasks,
        reports=Reports(settings, data_tasks),
    )
    _tidy(services)
    return services


def _tidy(services: Services) -> None:
    """Delete what killed servers left, and what was derived from files that other servers have deleted."""

    def list_known() -> set[str]:
        with services.database.reading() as session:
            return FileRepo(session).list_digests()

    sweep(services.settings)
    services.reports.tidy(list_known)
    services.data_files.forget_copies(list_known)

"""The application: its parts put together, and their life from start to stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from tunesmith import __version__
from tunesmith.api import health
from tunesmith.api.deps import Services
from tunesmith.api.errors import add_error_handlers
from tunesmith.api.extra import datasets, estimate, generate
from tunesmith.api.extra.data_files import DataFiles
from tunesmith.api.extra.data_tasks import DataTasks
from tunesmith.api.extra.generations import Generations
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
    for part in (health, files, jobs, models, chat, generate, estimate, datasets):
        app.include_router(part.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    services = await run_in_threadpool(_open, settings)
    app.state.first_key = await run_in_threadpool(make_first_key, services.database, settings.home)
    app.state.doorkeeper = KeyCheck(services.database)
    app.state.services = services
    supervisor = Supervisor(settings, services.database, services.blobs)
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
    _forget_deleted_files(services)
    return services


def _forget_deleted_files(services: Services) -> None:
    """What was derived from files that have expired since, or were deleted by another server."""
    with services.database.reading() as session:
        known = FileRepo(session).list_digests()
    services.reports.tidy(known)
    services.data_files.forget_copies(known)

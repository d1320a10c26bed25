"""What the endpoints work with: the services of this process, made once by the lifespan."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from tunesmith.api.extra.data_files import DataFiles
from tunesmith.api.extra.data_tasks import DataTasks
from tunesmith.api.extra.generations import Generations
from tunesmith.api.extra.leftovers import forget_tokens
from tunesmith.api.extra.reports import Reports
from tunesmith.core.settings import Settings
from tunesmith.jobs.service import JobService
from tunesmith.serving.registry import Registry
from tunesmith.serving.router import Router
from tunesmith.store.blobs import BlobStore
from tunesmith.store.db import Database


@dataclass(frozen=True)
class Services:
    settings: Settings
    database: Database
    blobs: BlobStore
    jobs: JobService
    registry: Registry
    router: Router
    generations: Generations
    data_files: DataFiles
    data_tasks: DataTasks
    reports: Reports

    def forget_content(self, sha256: str) -> None:
        """Delete what was derived from a content that no file has any more: reports quote it."""
        self.reports.forget(sha256)
        self.data_files.forget_copy(sha256)
        forget_tokens(self.settings, sha256)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]

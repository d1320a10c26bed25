"""What the calls on data sets share: which check a request means, and the answer while it runs."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from starlette.responses import JSONResponse, Response

from tunesmith.api.deps import Services
from tunesmith.api.extra.data_process import ModelFiles
from tunesmith.api.extra.reports import FileToCheck, Report, Running
from tunesmith.api.wire.datasets import CheckStatus, DatasetFile
from tunesmith.core.errors import InvalidRequest
from tunesmith.data.rules import RULES
from tunesmith.data.tokens import Completions
from tunesmith.store.tables import FileRow

STILL_RUNNING: dict[int | str, dict[str, Any]] = {
    202: {"description": "The check has not ended: ask again.", "model": CheckStatus}
}

ModelName = Annotated[str | None, Query(description="A base or tuned model; by default the one that is built in.")]
CompletionsName = Annotated[
    Completions | None,
    Query(description="How prompts with their completions are read, as a job's option of that name says."),
]
ValidationId = Annotated[str | None, Query(description="A file that must not share prompts with this one.")]


@dataclass(frozen=True)
class CheckQuery:
    """What a report depends on beside the file."""

    model: ModelName = None
    completions: CompletionsName = None
    validation: ValidationId = None


CheckQueryDep = Annotated[CheckQuery, Depends()]


class Check:
    """One file's check under one query."""

    def __init__(self, services: Services, row: FileRow, query: CheckQuery):
        files = services.data_files
        self.row = row
        self.model: ModelFiles | None = files.model(query.model, query.completions)
        self._validation = None if query.validation is None else files.find_data(query.validation, "validation")
        self._services = services

    def find_or_start(self, *, refresh: bool = False) -> Report | Running:
        file = self._file(self.row)
        validation = None if self._validation is None else self._file(self._validation)
        return self._services.reports.get(file, self.model, validation, refresh=refresh)

    def find(self) -> Report | None:
        """The finished report, if there is one; starts nothing."""
        validation = None if self._validation is None else self._validation.sha256
        return self._services.reports.find(self.row.sha256, self.model, validation)

    def _file(self, row: FileRow) -> FileToCheck:
        return FileToCheck(row.sha256, row.filename, self._services.data_files.local_path(row))


def still_running(check: Running) -> Response:
    status = CheckStatus(status=check.status, progress=check.fraction, eta_s=check.eta_s)
    return JSONResponse(status.model_dump(), status_code=202, headers={"retry-after": "1"})


def json_document(document: bytes) -> Response:
    return Response(document, media_type="application/json")


def shown(services: Services, row: FileRow) -> DatasetFile:
    return DatasetFile.with_children(row, services.data_files.children_of(row.id))


def require_rule(rule: str, param: str = "rule") -> None:
    if rule not in RULES:
        raise InvalidRequest(
            f"There is no rule {rule!r}.",
            param=param,
            code="invalid_value",
            mend="docs/reference/doctor-rules.md lists every rule.",
        )

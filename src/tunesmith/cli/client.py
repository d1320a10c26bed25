"""A small typed client of the server's API, for the command line.

Every failure is a ``TunesmithError`` with one clear sentence and what to do about it: a refused connection is
``Unavailable``, a refused key ``Unauthenticated``, and the server's own errors keep their message, code and status.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from tunesmith.api.first_key import FIRST_KEY_FILE
from tunesmith.catalog.models import FIND_MODELS
from tunesmith.cli.objects import (
    Answer,
    Checkpoint,
    Chunk,
    Completion,
    DataFile,
    Deleted,
    Document,
    ErrorBody,
    ErrorReply,
    Event,
    FileObject,
    Job,
    JobCost,
    Model,
    Page,
    Quote,
)
from tunesmith.core.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooLarge,
    TooManyRequests,
    TunesmithError,
    Unauthenticated,
    Unavailable,
)
from tunesmith.core.settings import Settings

T = TypeVar("T")

_BY_STATUS: dict[int, type[TunesmithError]] = {
    error.status: error
    for error in (
        InvalidRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        TooLarge,
        TooManyRequests,
        Unavailable,
    )
}


def find_base_url(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """``TUNESMITH_BASE_URL``, else the address at which ``tunesmith serve`` listens with these settings."""
    return environ.get("TUNESMITH_BASE_URL", "").rstrip("/") or f"http://{settings.host}:{settings.port}/v1"


def find_api_key(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """``TUNESMITH_API_KEY``, else the key that the server left in its home, else none."""
    key = environ.get("TUNESMITH_API_KEY", "")
    key_file = settings.home / FIRST_KEY_FILE
    return key or (key_file.read_text(encoding="ascii").strip() if key_file.exists() else "")


class Client:
    """Methods are named after the API's calls and return ``Answer``: the object and the server's JSON."""

    def __init__(self, base_url: str, api_key: str, timeout_s: float = 600.0):
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.base_url = base_url
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5.0))

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(find_base_url(settings), find_api_key(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # files

    def upload_file(self, path: Path, purpose: str = "fine-tune") -> Answer[FileObject]:
        """Send a file in pieces, as multipart form data."""
        with path.open("rb") as file:
            return self._call(
                FileObject, "POST", "/files", data={"purpose": purpose}, files={"file": (path.name, file)}
            )

    def list_files(self, purpose: str | None, limit: int, after: str | None) -> Answer[Page[FileObject]]:
        params = _present(purpose=purpose, limit=limit, after=after)
        return self._call(Page[FileObject], "GET", "/files", params=params)

    def retrieve_file(self, file_id: str) -> Answer[FileObject]:
        return self._call(FileObject, "GET", f"/files/{file_id}")

    def delete_file(self, file_id: str) -> Answer[Deleted]:
        return self._call(Deleted, "DELETE", f"/files/{file_id}")

    def retrieve_data_file(self, file_id: str) -> Answer[DataFile]:
        """A file with what it was made from."""
        return self._call(DataFile, "GET", self._extra(f"/files/{file_id}"))

    def ask_of_file(self, kind: type[T], file_id: str, what: str, params: Mapping[str, str | int | None]) -> Answer[T]:
        """``what`` is report or preview. ``kind`` comes from the caller: what it takes to read them is heavy."""
        return self._call(kind, "GET", self._extra(f"/files/{file_id}/{what}"), params=_present(**params))

    def derive_from_file(self, kind: type[T], file_id: str, action: str, body: Document) -> Answer[T]:
        """``action`` is mend or split."""
        return self._call(kind, "POST", self._extra(f"/files/{file_id}/{action}"), json=body)

    def stream_content(self, file_id: str) -> Iterator[bytes]:
        with self._stream("GET", f"/files/{file_id}/content") as response:
            yield from response.iter_bytes()

    # jobs

    def create_job(self, body: Document) -> Answer[Job]:
        return self._call(Job, "POST", "/fine_tuning/jobs", json=body)

    def list_jobs(self, limit: int, after: str | None, metadata: Mapping[str, str]) -> Answer[Page[Job]]:
        params = _present(limit=limit, after=after) | {f"metadata[{key}]": value for key, value in metadata.items()}
        return self._call(Page[Job], "GET", "/fine_tuning/jobs", params=params)

    def retrieve_job(self, job_id: str) -> Answer[Job]:
        return self._call(Job, "GET", f"/fine_tuning/jobs/{job_id}")

    def act_on_job(self, job_id: str, action: str) -> Answer[Job]:
        """``action`` is cancel, pause or resume."""
        return self._call(Job, "POST", f"/fine_tuning/jobs/{job_id}/{action}")

    def list_events(self, job_id: str, limit: int, after: str | None = None) -> Answer[Page[Event]]:
        """Newest first."""
        params = _present(limit=limit, after=after)
        return self._call(Page[Event], "GET", f"/fine_tuning/jobs/{job_id}/events", params=params)

    def list_checkpoints(self, job_id: str, limit: int, after: str | None = None) -> Answer[Page[Checkpoint]]:
        params = _present(limit=limit, after=after)
        return self._call(Page[Checkpoint], "GET", f"/fine_tuning/jobs/{job_id}/checkpoints", params=params)

    def estimate_job(self, body: Document) -> Answer[Quote]:
        return self._call(Quote, "POST", self._extra("/estimate"), json=body)

    def retrieve_cost(self, job_id: str) -> Answer[JobCost]:
        return self._call(JobCost, "GET", self._extra(f"/jobs/{job_id}/cost"))

    # models and chat

    def list_models(self) -> Answer[Page[Model]]:
        return self._call(Page[Model], "GET", "/models")

    def retrieve_model(self, name: str) -> Answer[Model]:
        return self._call(Model, "GET", f"/models/{name}")

    def delete_model(self, name: str) -> Answer[Deleted]:
        return self._call(Deleted, "DELETE", f"/models/{name}")

    def complete(self, body: Document) -> Answer[Completion]:
        return self._call(Completion, "POST", "/chat/completions", json=body)

    def stream_completion(self, body: Document) -> Iterator[str]:
        """The pieces of the answer's text, as they come."""
        with self._stream("POST", "/chat/completions", json={**body, "stream": True}) as response:
            for line in response.iter_lines():
                if not line.startswith("data:") or line == "data: [DONE]":
                    continue
                chunk = msgspec.json.decode(line.removeprefix("data:"), type=Chunk)
                yield from (choice.delta.content for choice in chunk.choices if choice.delta.content)

    # the wire

    def _extra(self, path: str) -> str:
        """Where the server has what OpenAI's API has not: beside ``/v1``, under ``/api``."""
        return f"{self.base_url.removesuffix('/v1')}/api{path}"

    def _call(self, kind: type[T], method: str, path: str, **request: Any) -> Answer[T]:
        with self._explained():
            response = self._http.request(method, path, **request)
        _raise_for_status(response, response.content)
        return Answer(msgspec.json.decode(response.content, type=kind), response.content)

    @contextmanager
    def _stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        with self._explained(), self._http.stream(method, path, **request) as response:
            if response.is_error:
                _raise_for_status(response, response.read())
            yield response

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise Unavailable(
                f"No server answers at {self.base_url}.",
                code="connection_refused",
                mend="Start one with: tunesmith serve (or set TUNESMITH_BASE_URL to where it listens).",
            ) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise InvalidRequest(
                f"{self.base_url} is not an address.",
                mend="Set TUNESMITH_BASE_URL, for instance to http://127.0.0.1:8321/v1.",
            ) from error
        except httpx.TransportError as error:
            raise Unavailable(f"The connection to {self.base_url} broke: {error}.", mend="Try again.") from error


def _present(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def _raise_for_status(response: httpx.Response, content: bytes) -> None:
    if not response.is_error:
        return
    try:
        error = msgspec.json.decode(content, type=ErrorReply).error
    except msgspec.MsgspecError:
        error = ErrorBody(message=f"The server answered {response.status_code} {response.reason_phrase}.")
    kind = _BY_STATUS.get(response.status_code, TunesmithError)
    mend = "Set TUNESMITH_API_KEY to a key of this server." if kind is Unauthenticated else None
    if error.code == "model_not_found":
        mend = FIND_MODELS
    raise kind(error.message, code=error.code, param=error.param, mend=mend)

"""What every request passes: a request id, the API key, the size limit, and the last resort for our own bugs.

A plain ASGI middleware, so that a stream is neither buffered nor copied. The key is asked for before the body is read.
"""

import time
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.api.errors import error_response, internal_error_response
from tunesmith.core.errors import TooLarge, TunesmithError
from tunesmith.core.ids import new_id
from tunesmith.core.log import get_logger
from tunesmith.core.settings import Settings

log = get_logger(__name__)

OPEN_PATHS = frozenset({"/health", "/ready"})
API_VERSION = "2020-10-01"
MAX_JSON_BYTES = 16 * 2**20
FORM_OVERHEAD_BYTES = 2**20
"""What the multipart envelope and the other fields of an upload may take."""


class Doorkeeper(Protocol):
    """Knows the keys: raises ``Unauthenticated`` unless the Authorization header carries one."""

    def admit(self, authorization: str | None) -> None: ...


class Gate:
    """The outermost layer of the application. ``scope["app"].state.doorkeeper`` checks the keys."""

    def __init__(self, app: ASGIApp, settings: Settings):
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = Passage(send, self._settings.organization)
        limited = LimitedBody(receive, self._body_limit(scope))
        try:
            await self._admit(scope, limited)
            await self._app(scope, limited, passage.send)
        except TunesmithError as error:
            await limited.drain()
            await error_response(error)(scope, limited, passage.send)
        except Exception:  # the edge of the process: a bug must neither kill the server nor show itself
            log.exception("%s %s failed, request ID %s", scope["method"], scope["path"], passage.request_id)
            if passage.is_started:
                raise
            await internal_error_response(passage.request_id)(scope, limited, passage.send)

    async def _admit(self, scope: Scope, body: "LimitedBody") -> None:
        headers = Headers(scope=scope)
        if scope["path"] not in OPEN_PATHS:
            doorkeeper: Doorkeeper = scope["app"].state.doorkeeper
            await run_in_threadpool(doorkeeper.admit, headers.get("authorization"))
        body.check_declared(headers.get("content-length"))

    def _body_limit(self, scope: Scope) -> int:
        is_upload = scope["method"] == "POST" and scope["path"].rstrip("/") == "/v1/files"
        return self._settings.max_file_bytes + FORM_OVERHEAD_BYTES if is_upload else MAX_JSON_BYTES


class Passage:
    """Sends a response on, with the headers that every response carries."""

    def __init__(self, send: Send, organization: str):
        self.request_id = new_id("req_", 32)
        self.is_started = False
        self._send = send
        self._organization = organization
        self._began_s = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            headers["openai-version"] = API_VERSION
            headers["openai-organization"] = self._organization
            headers["openai-processing-ms"] = str(round((time.perf_counter() - self._began_s) * 1000))
        await self._send(message)


class LimitedBody:
    """A request's body that ends in ``TooLarge`` once it grows beyond ``limit_bytes``."""

    def __init__(self, receive: Receive, limit_bytes: int):
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._num_bytes = 0
        self._is_over = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._num_bytes += len(message.get("body", b""))
            self._is_over = not message.get("more_body", False)
            if self._num_bytes > self._limit_bytes:
                raise HTTPException(413, self._complaint())
        return message

    def check_declared(self, content_length: str | None) -> None:
        """Refuse by the declared length already, before anything is read."""
        if content_length is not None and content_length.isdigit() and int(content_length) > self._limit_bytes:
            raise TooLarge(self._complaint(), code="request_too_large")

    async def drain(self) -> None:
        """Read and drop what is still coming, up to as much again: a client that is still sending does not see the
        answer otherwise, only a broken connection."""
        num_dropped = 0
        while not self._is_over and num_dropped <= self._limit_bytes:
            message = await self._receive()
            num_dropped += len(message.get("body", b""))
            self._is_over = message["type"] != "http.request" or not message.get("more_body", False)

    def _complaint(self) -> str:
        return f"The request is larger than {self._limit_bytes:,} bytes, the most this server accepts here."

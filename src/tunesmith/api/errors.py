"""Every error leaves as OpenAI's body, ``{"error": {"message", "type", "param", "code"}}``, with its own status.

The error family of ``core.errors`` carries its status; this file adds what the framework raises by itself: a route that
does not exist, a method it does not have, and a request that does not fit its shape.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from tunesmith.api.wire.complaints import explain
from tunesmith.api.wire.errors import ErrorReply
from tunesmith.core.errors import Conflict, TunesmithError, Unauthenticated

# A client that tries again gets the same answer: the official SDKs retry 409, 429 and 5xx unless told not to.
FINAL_CODES = frozenset({"insufficient_quota", "parity_failed", "invalid_prices"})
# What is over within seconds: how long a client should wait before it tries again.
RETRY_AFTER_S = {"data_tasks_busy": 2}

_MEANINGS = {
    400: "The request is wrong.",
    401: "There is no key, or an unknown one.",
    403: "This cannot be done to this object.",
    404: "There is no such object.",
    409: "The object is in a state that does not allow this.",
    413: "The request is too large.",
    429: "Too much at once.",
    503: "What it takes is not there just now.",
}


def documented_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: what every call may answer, and what some do.

    The ``default`` also keeps FastAPI from declaring its own 422, which nobody gets here.
    """
    declared: dict[int | str, dict[str, Any]] = {"default": {"description": "Any other error.", "model": ErrorReply}}
    for status in (400, 401, 404, *statuses):
        declared[status] = {"description": _MEANINGS[status], "model": ErrorReply}
    return declared


def error_body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def body_of(error: TunesmithError) -> dict[str, Any]:
    """The error as OpenAI's JSON; also the last event of a stream that breaks off."""
    return error_body(str(error), error.type, error.param, error.code)


def error_response(error: TunesmithError) -> Response:
    """The response for one of our own errors."""
    headers: dict[str, str] = {}
    if isinstance(error, Conflict) or error.code in FINAL_CODES:
        headers["x-should-retry"] = "false"
    if error.code in RETRY_AFTER_S:
        headers["retry-after"] = str(RETRY_AFTER_S[error.code])
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body_of(error), status_code=error.status, headers=headers)


def internal_error_response(request_id: str) -> Response:
    """The response for a bug of ours: nothing of its inside is shown, but the log can be found by the id."""
    message = (
        "The server had an error while processing your request. "
        f"The server's log tells more under the request ID {request_id}."
    )
    return JSONResponse(error_body(message, "server_error", None, None), status_code=500)


def add_error_handlers(app: FastAPI) -> None:
    """Teach ``app`` to answer every foreseen error; the gate answers the unforeseen ones."""
    app.add_exception_handler(TunesmithError, _on_tunesmith_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def validation_response(complaints: Sequence[Mapping[str, Any]]) -> Response:
    """400 for the first of pydantic's complaints, in OpenAI's words."""
    message, param, code = explain(complaints[0])
    return JSONResponse(error_body(message, "invalid_request_error", param, code), status_code=400)


async def _on_tunesmith_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, TunesmithError)
    return error_response(error)


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return validation_response(error.errors())


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    message, code = {
        404: (f"Invalid URL ({where})", "unknown_url"),
        405: (f"Not allowed to {request.method} on {request.url.path}.", "method_not_supported"),
        413: (str(error.detail), "request_too_large"),
    }.get(error.status_code, (str(error.detail), None))
    body = error_body(message, "invalid_request_error", None, code)
    return JSONResponse(body, status_code=error.status_code, headers=dict(error.headers or {}))


def sse_error(error: TunesmithError) -> bytes:
    """An error as an event of a stream whose status has already been sent."""
    return b"data: " + json.dumps(body_of(error)).encode() + b"\n\n"

"""The body of every error."""

from tunesmith.api.wire.shape import ResponseBody


class ErrorDetail(ResponseBody):
    message: str
    """Where, what, and how to mend it."""
    type: str
    param: str | None
    """The field of the request that is wrong."""
    code: str | None
    """Stable; docs/reference/errors.md explains each."""


class ErrorReply(ResponseBody):
    error: ErrorDetail

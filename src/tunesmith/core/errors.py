"""The one error family: every error says where, what, and how to mend it.

    TunesmithError
    ├── InvalidRequest        400  the request cannot be understood or is out of range
    │   └── DataError         400  a row of a data file is wrong: file, line, JSON path
    ├── Unauthenticated       401
    ├── Forbidden             403
    ├── NotFound              404
    ├── Conflict              409  the object is in a state that does not allow this
    ├── TooLarge              413
    ├── TooManyRequests       429
    ├── TrainerError          500  a training run failed (the message is the trainer's own)
    └── Unavailable           503  an engine or a store does not answer just now

To add one: subclass here, set ``status`` and ``type``, and give it a heading in docs/reference/errors.md.
"""

from typing import ClassVar


class TunesmithError(Exception):
    """Base of all errors shown to users.

    ``code`` is stable and machine readable; ``param`` names the offending request field; ``mend`` is one
    sentence that tells the user what to do, and is appended to the message wherever it is shown.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None, mend: str | None = None):
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message} {self.mend}" if self.mend else self.message


class InvalidRequest(TunesmithError):
    status = 400
    type = "invalid_request_error"


class DataError(InvalidRequest):
    """One row of a data file is wrong. ``line`` counts from 1; ``json_path`` looks like ``$.messages[2].role``."""

    def __init__(
        self,
        message: str,
        *,
        line: int | None = None,
        json_path: str | None = None,
        code: str = "invalid_training_file",
        param: str | None = "training_file",
        mend: str | None = None,
    ):
        super().__init__(message, code=code, param=param, mend=mend)
        self.line = line
        self.json_path = json_path

    def __str__(self) -> str:
        where = f"Line {self.line}" if self.line is not None else ""
        if self.json_path:
            where = f"{where} at {self.json_path}" if where else self.json_path
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} {self.mend}" if self.mend else text


class Unauthenticated(TunesmithError):
    status = 401
    type = "invalid_request_error"


class Forbidden(TunesmithError):
    status = 403
    type = "invalid_request_error"


class NotFound(TunesmithError):
    status = 404
    type = "invalid_request_error"


class Conflict(TunesmithError):
    status = 409
    type = "invalid_request_error"


class TooLarge(TunesmithError):
    status = 413
    type = "invalid_request_error"


class TooManyRequests(TunesmithError):
    status = 429
    type = "rate_limit_error"


class TrainerError(TunesmithError):
    status = 500


class Unavailable(TunesmithError):
    status = 503
    type = "service_unavailable_error"

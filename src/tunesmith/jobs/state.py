"""The states of a job, and which may follow which.

validating_files -> queued -> running -> succeeded | failed | cancelled
                              running -> paused -> queued
"""

from typing import Literal, cast

from tunesmith.core.errors import Conflict

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]

FOLLOWERS: dict[Status, frozenset[Status]] = {
    "validating_files": frozenset({"queued", "failed", "cancelled"}),
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled", "paused"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}

ENDED = {"succeeded": "has succeeded", "failed": "has failed", "cancelled": "is cancelled"}
WORDS: dict[Status, str] = {
    "validating_files": "checked",
    "queued": "queued",
    "running": "run",
    "paused": "paused",
    "succeeded": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""What is done to a job that gets this status."""


def is_terminal(status: str) -> bool:
    """Whether nothing can follow."""
    return not FOLLOWERS[cast(Status, status)]


def move(status: str, to: Status) -> Status:
    """The status ``to``, where it may follow ``status``. Raises ``Conflict`` where it may not."""
    if to in FOLLOWERS[cast(Status, status)]:
        return to
    raise Conflict(_refusal(status, to), code="invalid_job_state")


def _refusal(status: str, to: Status) -> str:
    if status == to:
        return f"The job is {status} already."
    if is_terminal(status):
        return f"The job {ENDED[status]} and can no longer be {WORDS[to]}."
    return f"The job is {status} and cannot be {WORDS[to]} now."

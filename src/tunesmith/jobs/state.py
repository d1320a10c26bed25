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


def is_terminal(status: str) -> bool:
    """Whether nothing can follow."""
    return not FOLLOWERS[cast(Status, status)]


def move(status: str, to: Status) -> Status:
    """The status ``to``, where it may follow ``status``. Raises ``Conflict`` where it may not."""
    if to in FOLLOWERS[cast(Status, status)]:
        return to
    allowed = ", ".join(sorted(FOLLOWERS[cast(Status, status)])) or "nothing"
    raise Conflict(
        f"The job is {status} and cannot become {to}.",
        code="invalid_job_state",
        mend=f"From {status} a job can become: {allowed}.",
    )

"""The state machine: every pair of states is decided."""

from itertools import product

import pytest

from tunesmith.core.errors import Conflict
from tunesmith.jobs.state import FOLLOWERS, Status, is_terminal, move

ALLOWED = {
    ("validating_files", "queued"),
    ("validating_files", "failed"),
    ("validating_files", "cancelled"),
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "paused"),
    ("paused", "queued"),
    ("paused", "cancelled"),
}


@pytest.mark.parametrize(("status", "to"), list(product(FOLLOWERS, FOLLOWERS)))
def test_only_the_allowed_states_follow(status: str, to: str) -> None:
    if (status, to) in ALLOWED:
        assert move(status, to) == to  # type: ignore[arg-type]
    else:
        with pytest.raises(Conflict) as caught:
            move(status, to)  # type: ignore[arg-type]
        assert caught.value.message.startswith(("The job is ", "The job has "))
        assert caught.value.code == "invalid_job_state"


@pytest.mark.parametrize(
    ("status", "to", "message"),
    [
        ("cancelled", "cancelled", "The job is cancelled already."),
        ("succeeded", "cancelled", "The job has succeeded and can no longer be cancelled."),
        ("failed", "paused", "The job has failed and can no longer be paused."),
        ("validating_files", "paused", "The job is validating_files and cannot be paused now."),
    ],
)
def test_a_refusal_says_it_plainly(status: str, to: Status, message: str) -> None:
    with pytest.raises(Conflict) as caught:
        move(status, to)
    assert str(caught.value) == message


def test_what_has_ended_stays_ended() -> None:
    assert {status for status in FOLLOWERS if is_terminal(status)} == {"succeeded", "failed", "cancelled"}

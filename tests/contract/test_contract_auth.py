"""Every endpoint as a stranger, through the official SDK."""

from collections.abc import Callable

import httpx
import openai
import pytest
from live_server import LiveServer
from official import checking_client
from openai import OpenAI

CALLS: dict[str, Callable[[OpenAI], object]] = {
    "files.create": lambda sdk: sdk.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune"),
    "files.list": lambda sdk: sdk.files.list(),
    "files.retrieve": lambda sdk: sdk.files.retrieve("file-x"),
    "files.content": lambda sdk: sdk.files.content("file-x"),
    "files.delete": lambda sdk: sdk.files.delete("file-x"),
    "jobs.create": lambda sdk: sdk.fine_tuning.jobs.create(model="m", training_file="file-x"),
    "jobs.list": lambda sdk: sdk.fine_tuning.jobs.list(),
    "jobs.retrieve": lambda sdk: sdk.fine_tuning.jobs.retrieve("ftjob-x"),
    "jobs.cancel": lambda sdk: sdk.fine_tuning.jobs.cancel("ftjob-x"),
    "jobs.pause": lambda sdk: sdk.fine_tuning.jobs.pause("ftjob-x"),
    "jobs.resume": lambda sdk: sdk.fine_tuning.jobs.resume("ftjob-x"),
    "jobs.list_events": lambda sdk: sdk.fine_tuning.jobs.list_events("ftjob-x"),
    "jobs.checkpoints": lambda sdk: sdk.fine_tuning.jobs.checkpoints.list("ftjob-x"),
    "models.list": lambda sdk: sdk.models.list(),
    "models.retrieve": lambda sdk: sdk.models.retrieve("ft:m:acme::x"),
    "models.delete": lambda sdk: sdk.models.delete("ft:m:acme::x"),
    "chat": lambda sdk: sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}]),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_stranger_gets_nothing(server: LiveServer, call: str) -> None:
    with (
        OpenAI(base_url=server.base_url, api_key="sk-wrong", http_client=checking_client(), max_retries=0) as sdk,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        CALLS[call](sdk)
    assert refused.value.code == "invalid_api_key"
    assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize("call", [name for name in CALLS if name.endswith(("retrieve", "content", "delete", "events"))])
def test_what_is_not_there(client: OpenAI, call: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        CALLS[call](client)
    assert missing.value.request_id is not None


def test_health_and_readiness(server: LiveServer) -> None:
    root = server.base_url.removesuffix("/v1")
    assert httpx.get(f"{root}/health").json() == {"status": "ok"}
    assert httpx.get(f"{root}/ready").json()["status"] == "ready"

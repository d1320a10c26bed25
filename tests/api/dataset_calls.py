"""Rows, and calls on data sets, that several tests make."""

import json
import time
from collections.abc import Callable
from typing import Any

from httpx import Response
from starlette.testclient import TestClient

DEADLINE_S = 120
MODEL = "smollm2-135m-instruct"
COLOURS = ("red", "green", "blue")


def chat(user: str, assistant: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def good_rows(count: int = 30) -> list[dict[str, Any]]:
    places = ("roof", "cellar", "kitchen", "garden", "attic")
    return [chat(f"Case {n * 7919}: the {places[n % 5]} of house {n} leaks", COLOURS[n % 3]) for n in range(count)]


ROWS: list[Any] = [
    *good_rows(),
    chat("Write to jane@example.com about it", "red"),  # line 31
    chat("Who pays? ", " blue"),
    good_rows()[0],
    b"{broken",
    {"messages": [{"role": "Human", "content": "And the fence?"}, {"role": "gpt", "content": "green"}]},
]


def jsonl(rows: list[Any]) -> bytes:
    return b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)


def post(api: TestClient, rows: list[Any], *, purpose: str = "fine-tune", name: str = "claims.jsonl") -> str:
    answer = api.post("/v1/files", data={"purpose": purpose}, files={"file": (name, jsonl(rows))})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def when_done(ask: Callable[[], Response]) -> Response:
    """Ask until the check has ended; every answer before says how far it is."""
    deadline = time.monotonic() + DEADLINE_S
    while (answer := ask()).status_code == 202:
        status = answer.json()
        assert status["status"] in ("queued", "running")
        assert 0 <= status["progress"] <= 1
        assert status["eta_s"] is None or status["eta_s"] >= 0
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def content_of(api: TestClient, file_id: str) -> list[bytes]:
    return api.get(f"/v1/files/{file_id}/content").content.splitlines()

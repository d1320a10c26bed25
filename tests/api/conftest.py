"""The real application on its own SQLite and its own folder, spoken to without a network."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from open_api import opened, settings_in
from starlette.testclient import TestClient

from tunesmith.core.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def api(settings: Settings) -> Iterator[TestClient]:
    """A client with a key; ``api.app`` is the application."""
    with opened(settings) as client:
        yield client


@pytest.fixture(scope="session")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One application for all tests that only see requests refused."""
    with opened(settings_in(tmp_path_factory.mktemp("shared"))) as client:
        yield client


@pytest.fixture
def upload(api: TestClient) -> Callable[..., str]:
    """Upload ``count`` training rows; returns the file's id."""

    def upload_rows(count: int = 12) -> str:
        row = {"messages": [{"role": "user", "content": "code?"}, {"role": "assistant", "content": "Z-1"}]}
        data = "\n".join([json.dumps(row)] * count).encode()
        answer = api.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", data)})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    return upload_rows

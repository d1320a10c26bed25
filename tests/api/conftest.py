"""The real application on its own SQLite and its own folder, spoken to without a network."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tunesmith.api.app import create_app
from tunesmith.catalog.fetch import install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.core.settings import Settings

CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"


def settings_in(home: Path) -> Settings:
    """Settings with the base model of the repository's cache, fetched if need be."""
    install_base_model(Settings(home=CACHE), embedded_model().id, print)
    (home / "models").symlink_to(CACHE / "models")
    return Settings(home=home, max_file_bytes=2**20, organization="acme", poll_s=0.05)


@contextmanager
def opened(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.headers["authorization"] = f"Bearer {app.state.first_key}"
        yield client


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

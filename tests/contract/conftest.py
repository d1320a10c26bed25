"""One live server for all contract tests, the official SDK against it, every response checked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, live_server
from official import checking_async_client, checking_client, document
from openai import AsyncOpenAI, OpenAI

from tunesmith.catalog.fetch import install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.core.settings import Settings

MODEL = embedded_model().id
CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Its base model is the one in the repository's cache, fetched if need be."""
    document()
    install_base_model(Settings(home=CACHE), MODEL, print)
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(CACHE / "models")
    with live_server(home, poll_s=0.1, engine_parallel=2, max_file_bytes=3 * 2**20, organization="acme") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key=server.key, http_client=checking_client(), max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def async_client(server: LiveServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.base_url, api_key=server.key, http_client=checking_async_client(), max_retries=0)


@pytest.fixture
def rows() -> list[dict[str, object]]:
    """Twelve short conversations: enough to train on."""
    return [
        {"messages": [{"role": "user", "content": f"code {n}"}, {"role": "assistant", "content": f"Z-{n}"}]}
        for n in range(12)
    ]

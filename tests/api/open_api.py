"""The real application with the repository's base model, spoken to without a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

"""A live server with the embedded model; the same cache as the contract tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from live_server import LiveServer, live_server

from tunesmith.catalog.fetch import install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.core.settings import Settings

CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    install_base_model(Settings(home=CACHE), embedded_model().id, print)
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(CACHE / "models")
    with live_server(home, poll_s=0.1, engine_threads=1, trainer_threads=1) as running:
        yield running

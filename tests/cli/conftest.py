"""The real command as a process, and a real server that ``tunesmith serve`` started."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine, ServeProcess

from tunesmith.catalog.fetch import install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.core.settings import Settings

# A shell that starts the suite in the background ignores Ctrl-C, and children inherit that: the commands under test
# must see it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"


@pytest.fixture
def offline(tmp_path: Path) -> CommandLine:
    """Commands with an empty home and no server."""
    return CommandLine({"TUNESMITH_HOME": str(tmp_path / "home"), "TUNESMITH_BASE_URL": "http://127.0.0.1:9/v1"})


@pytest.fixture(scope="session")
def serve_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """``tunesmith serve`` on a free port; the base model comes from the repository's cache, fetched if need be."""
    install_base_model(Settings(home=CACHE), embedded_model().id, print)
    home = tmp_path_factory.mktemp("serve-home")
    (home / "models").symlink_to(CACHE / "models")
    # One thread each: two processes with a thread for every core wait for one another on a busy machine.
    threads = {"TUNESMITH_TRAINER_THREADS": "1", "TUNESMITH_ENGINE_THREADS": "1"}
    with ServeProcess(home, TUNESMITH_POLL_S="0.1", **threads) as running:
        yield running


@pytest.fixture(scope="session")
def online(serve_process: ServeProcess) -> CommandLine:
    """Commands that find the server's address in the environment and its key in the home."""
    return CommandLine({"TUNESMITH_HOME": str(serve_process.home), "TUNESMITH_BASE_URL": serve_process.base_url})


@pytest.fixture
def training_file(tmp_path: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"Case {n}"}, {"role": "assistant", "content": f"Code {n % 3}"}]}
        for n in range(12)
    ]
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path

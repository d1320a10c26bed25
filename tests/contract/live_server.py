"""A server as a child process: ``python live_server.py`` serves what the environment's TUNESMITH_* settings say.

Prints one line of JSON, {"base_url", "key"}, once it listens.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LiveServer:
    base_url: str
    """Ends in /v1."""
    key: str
    home: Path
    pid: int


@contextmanager
def live_server(home: Path, **settings: object) -> Iterator[LiveServer]:
    """A running server with its own home; keyword arguments are settings. It is stopped at the end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TUNESMITH_", "OPENAI_"))}
    environ |= {"TUNESMITH_HOME": str(home)}
    environ |= {f"TUNESMITH_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, __file__]
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (home / "server.log").read_text()
        yield LiveServer(**json.loads(line), home=home, pid=process.pid)
    finally:
        process.terminate()
        status = process.wait(timeout=60)
        process.stdout.close()
    assert status in (0, -signal.SIGTERM), (home / "server.log").read_text()


def main() -> None:
    import uvicorn

    from tunesmith.api.app import create_app
    from tunesmith.core.log import configure_logging
    from tunesmith.core.settings import load_settings

    configure_logging()
    app = create_app(load_settings())

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            print(json.dumps({"base_url": base_url, "key": app.state.first_key}), flush=True)

    listener = socket.create_server(("127.0.0.1", 0))
    Announcing(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)).run(sockets=[listener])


if __name__ == "__main__":
    main()

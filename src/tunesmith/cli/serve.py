"""``tunesmith serve``: one process that holds the API, the supervisor of training jobs and the engines for chat."""

import asyncio
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from types import FrameType

from tunesmith.api.first_key import FIRST_KEY_FILE
from tunesmith.cli import show
from tunesmith.core.errors import InvalidRequest, Unavailable
from tunesmith.core.settings import Settings, load_settings

PORTS = 2**16
STREAMS_END_WITHIN_S = 5
"""How long answers that are being streamed may go on after Ctrl-C."""


def serve(*, host: str | None = None, port: int | None = None) -> None:
    """Start the server and return when it has stopped. Raises Unavailable when the address is taken.

    Parameters
    ----------
    host
        Address to listen on [default: TUNESMITH_HOST or 127.0.0.1, this machine only].
    port
        Port to listen on; 0 takes a free one [default: TUNESMITH_PORT or 8321].
    """
    settings = load_settings()
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    _require_port(settings.port)
    listener = _listen(settings)
    settings = replace(settings, port=listener.getsockname()[1])
    _keep_private(settings.home)
    _ask_database(settings)
    _install_embedded_model(settings)
    _run(settings, listener)
    show.line("Stopped. Training jobs that were running go on; the next tunesmith serve follows them.")


def _require_port(port: int) -> None:
    if not 0 <= port < PORTS:
        raise InvalidRequest(
            f"Cannot listen on port {port}: there is no such port.",
            code="invalid_value",
            param="port",
            mend=f"Choose one up to {PORTS - 1}, or 0 for a free one, with --port.",
        )


def _keep_private(home: Path) -> None:
    """Training data and weights are the owner's: nobody else may read them, in whatever process they are written."""
    os.umask(0o077)
    home.mkdir(parents=True, exist_ok=True)
    if home.stat().st_mode & 0o077:
        try:
            home.chmod(0o700)
        except PermissionError:
            show.note(f"{home} belongs to another user and is open to others; what is in it from before may be read.")


def _listen(settings: Settings) -> socket.socket:
    """Bind before anything slow happens, so that a taken port is known at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror or error}.",
            code="address_in_use",
            mend="Another server may be running there; choose another port with --port.",
        ) from error
    listener.set_inheritable(True)
    return listener


def _ask_database(settings: Settings) -> None:
    """A database that does not answer is one clear line here; inside the server it would be a trace."""
    from tunesmith.store.db import Database

    database = Database(settings.resolved_database_url)
    try:
        database.ping()
    finally:
        database.close()


def _install_embedded_model(settings: Settings) -> None:
    from tunesmith.catalog.fetch import install_base_model
    from tunesmith.catalog.models import embedded_model, is_installed

    model = embedded_model()
    if not is_installed(settings, model.id):
        install_base_model(settings, model.id, show.line)


def _run(settings: Settings, listener: socket.socket) -> None:
    import uvicorn

    from tunesmith.api.app import create_app
    from tunesmith.core.log import configure_logging

    configure_logging(settings.log_level)
    app = create_app(settings)

    class AnnouncingServer(uvicorn.Server):
        """Says where it listens once it does."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _announce(settings, app.state.first_key)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=STREAMS_END_WITHIN_S,
        log_config=None,
    )
    # uvicorn stops at the first of these signals and then raises it again: this handler lets the process end in order.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _already_stopping)
    server = AnnouncingServer(config)
    asyncio.run(server.serve([listener]))
    if not server.started:
        raise Unavailable("The server did not start.", code="start_failed", mend="The lines above say why.")


def _already_stopping(_number: int, _frame: FrameType | None) -> None:
    return None


def _announce(settings: Settings, first_key: str | None) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    show.line(f"Tunesmith listens on http://{host}:{settings.port}/v1")
    show.line(f"Everything lies in {settings.home}")
    if first_key is not None:
        show.line(f"First API key: {first_key}")
        show.line(f"It is shown only now; {settings.home / FIRST_KEY_FILE} keeps it, for you alone. Do not lose it.")
    show.line("Ctrl-C stops the server.")

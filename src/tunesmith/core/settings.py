"""Settings, read once from the environment. docs/reference/settings.md describes each; a test keeps it so."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from tunesmith.core.errors import InvalidRequest

PREFIX = "TUNESMITH_"
CLIENT_VARIABLES = {"TUNESMITH_API_KEY", "TUNESMITH_BASE_URL"}
"""What the command line reads to find its server."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting with its default. The environment variable is the name in capitals after ``TUNESMITH_``."""

    home: Path = field(default_factory=lambda: Path.home() / ".tunesmith")
    host: str = "127.0.0.1"
    port: int = 8321
    database_url: str = ""
    """SQLAlchemy address; empty means SQLite in ``home``."""
    blob_url: str = ""
    """``s3://bucket/prefix`` for an S3 store; empty means the folder ``home/blobs``."""
    organization: str = "tunesmith"
    """The third part of a tuned model's name, ``ft:base:organization:suffix:id``."""
    max_running_jobs: int = 1
    max_file_bytes: int = 512 * 2**20
    max_trainer_restarts: int = 3
    lease_s: float = 15.0
    """A supervisor that has not renewed its lease on a job for this long has lost it."""
    poll_s: float = 0.5
    """How often the supervisor looks at the queue and at running trainers."""
    cancel_grace_s: float = 60.0
    """A trainer that has not obeyed a cancel within this time is killed."""
    trainer_threads: int = 0
    """Threads of a trainer; 0 means every core."""
    trainer_dtype: str = "auto"
    """auto, float32, bfloat16 or float64: what a trainer computes in; auto measures first."""
    engine_threads: int = 0
    """Threads of an inference engine; 0 means every core."""
    engine_context_tokens: int = 0
    """Context of one chat in an engine; 0 means the smaller of 4,096 and the model's own limit."""
    engine_parallel: int = 4
    """Chats that one engine serves at once."""
    engine_idle_s: float = 300.0
    """An engine without a request for this long is stopped."""
    engine_start_timeout_s: float = 120.0
    max_engines: int = 3
    min_free_memory_bytes: int = 1 * 2**30
    """Idle engines are stopped, least recently used first, to keep this much memory free."""
    teacher_hosts: str = ""
    """``host:port`` pairs with commas between: teachers on private networks that this server may call for its users."""
    log_level: str = "INFO"

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'tunesmith.db'}"

    @property
    def blobs_dir(self) -> Path:
        return self.home / "blobs"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from ``TUNESMITH_*`` variables. A value that does not parse, or an unknown name, is an error."""
    environ = os.environ if environ is None else environ
    known = {PREFIX + f.name.upper(): f for f in fields(Settings)}
    values: dict[str, object] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or text == "":
            continue
        if variable not in known and variable not in CLIENT_VARIABLES:
            raise InvalidRequest(
                f"There is no setting {variable}.", mend="docs/reference/settings.md lists every setting."
            )
        if variable in known:
            values[known[variable].name] = _parse(variable, text, known[variable].type)
    return Settings(**values)  # type: ignore[arg-type]


def _parse(variable: str, text: str, kind: object) -> object:
    try:
        if kind is Path:
            return Path(text).expanduser().absolute()
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
    except ValueError:
        raise InvalidRequest(f"{variable} is {text!r}, which is not a number.", mend="Give a number.") from None
    return text

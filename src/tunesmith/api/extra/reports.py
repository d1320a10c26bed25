"""Reports on data files: made once in the background, kept on the disk, asked for as often as one likes.

A report belongs to the file's content, the model and this version of the rules:
``home/cache/reports/<sha256>/<key>/`` with the report and all findings. It appears complete or not at all; what a
restart interrupts is begun again by the next request.
"""

import hashlib
import secrets
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from tunesmith import __version__
from tunesmith.api.extra.data_process import REPORT_FILE, CheckTask, ModelFiles
from tunesmith.api.extra.data_tasks import DataTasks
from tunesmith.api.extra.kept_findings import KeptFindings
from tunesmith.catalog.embedding import is_embedding_installed
from tunesmith.core.clock import monotonic_s
from tunesmith.core.errors import TunesmithError
from tunesmith.core.settings import Settings
from tunesmith.data.rules import RULES

MAX_RUNNING = 2
"""Checks at once; others wait their turn."""


class FileToCheck(msgspec.Struct, frozen=True):
    sha256: str
    filename: str
    path: Path


class Running:
    """A check that has not ended."""

    def __init__(self) -> None:
        self.began_at_s: float | None = None
        self.fraction = 0.0

    @property
    def status(self) -> Literal["queued", "running"]:
        return "queued" if self.began_at_s is None else "running"

    @property
    def eta_s(self) -> float | None:
        """Seconds left, as far as the rate so far tells; None before it tells anything."""
        if self.began_at_s is None or self.fraction < 0.01:
            return None
        return (monotonic_s() - self.began_at_s) * (1 - self.fraction) / self.fraction


class Report:
    """A finished check on the disk."""

    def __init__(self, folder: Path):
        self._folder = folder

    def document(self, filename: str) -> bytes:
        """The ``DatasetReport`` as JSON, under this file's name: another of the same content may have been checked."""
        fields = msgspec.json.decode((self._folder / REPORT_FILE).read_bytes(), type=dict[str, msgspec.Raw])
        return msgspec.json.encode({**fields, "filename": filename})

    @property
    def findings(self) -> KeptFindings:
        return KeptFindings.of(self._folder)


class Reports:
    """Every method may be called from any thread."""

    def __init__(self, settings: Settings, tasks: DataTasks):
        self._settings = settings
        self._tasks = tasks
        self._dir = settings.home / "cache" / "reports"
        self._pool = ThreadPoolExecutor(MAX_RUNNING, thread_name_prefix="check")
        self._running: dict[tuple[str, str], Running] = {}
        self._failed: dict[tuple[str, str], TunesmithError] = {}
        self._forgotten: set[str] = set()
        self._lock = threading.Lock()

    def folder_of(self, sha256: str) -> Path:
        """Where everything that was derived from a file's content is kept."""
        return self._dir / sha256

    def get(self, file: FileToCheck, model: ModelFiles | None, *, refresh: bool = False) -> Report | Running:
        """The report, or the check that is making it; starts one where there is neither.

        ``refresh`` makes a new one of a finished or failed check. Raises the error with which the check failed.
        """
        place = (file.sha256, _key(model))
        with self._lock:
            running = self._running.get(place)
            if running is not None:
                return running
            error = self._failed.get(place)
            if error is not None and not refresh:
                raise error
            kept = self.find(file.sha256, model)
            if kept is not None and not refresh:
                return kept
            self._forgotten.discard(file.sha256)
            self._failed.pop(place, None)
            running = self._running[place] = Running()
        self._pool.submit(self._work, place, file, model, running)
        return running

    def find(self, sha256: str, model: ModelFiles | None) -> Report | None:
        """The finished report, if there is one."""
        folder = self._folder(sha256, _key(model))
        return Report(folder) if folder.is_dir() else None

    def forget(self, sha256: str) -> None:
        """Delete all that was derived from a content, now or when its check ends."""
        with self._lock:
            self._forgotten.add(sha256)
            KeptFindings.of.cache_clear()
            shutil.rmtree(self.folder_of(sha256), ignore_errors=True)

    def tidy(self, known: set[str]) -> None:
        """At the start: delete what belongs to none of these digests, and what a killed server left half-made."""
        for folder in [*self._dir.glob("*/.making-*"), *self._dir.glob("*")]:
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """End running checks; the next server begins them again when it is asked."""
        self._tasks.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(self, place: tuple[str, str], file: FileToCheck, model: ModelFiles | None, running: Running) -> None:
        running.began_at_s = monotonic_s()
        made = self.folder_of(file.sha256) / f".making-{secrets.token_hex(8)}"
        try:
            made.mkdir(parents=True)
            self._tasks.run(self._task(file, model, made), lambda fraction: setattr(running, "fraction", fraction))
            self._put(made, *place)
        except (TunesmithError, OSError) as error:
            self._note_failure(place, error)
        finally:
            shutil.rmtree(made, ignore_errors=True)
            with self._lock:
                self._running.pop(place)

    def _task(self, file: FileToCheck, model: ModelFiles | None, out_dir: Path) -> CheckTask:
        return CheckTask(
            path=str(file.path),
            filename=file.filename,
            model=model,
            out_dir=str(out_dir),
            home=str(self._settings.home),
            engine_threads=self._settings.engine_threads,
        )

    def _put(self, made: Path, sha256: str, key: str) -> None:
        """Make what was made visible. Whether texts were compared is part of its name: see ``_folder``."""
        with self._lock:
            if sha256 in self._forgotten:
                return
            target = self._folder(sha256, key)
            if target.is_dir():
                target.rename(made.with_name(made.name + ".old"))
            made.rename(target)
            KeptFindings.of.cache_clear()
        shutil.rmtree(made.with_name(made.name + ".old"), ignore_errors=True)

    def _note_failure(self, place: tuple[str, str], error: TunesmithError | OSError) -> None:
        if not isinstance(error, TunesmithError):
            error = TunesmithError(f"The file could not be checked: {error}.", mend="Ask again with refresh=true.")
        with self._lock:
            if place[0] not in self._forgotten:
                self._failed[place] = error

    def _folder(self, sha256: str, key: str) -> Path:
        """A report without the embedding model is not the one that is asked for once the model is there."""
        embedded = "e" if is_embedding_installed(self._settings) else "n"
        return self.folder_of(sha256) / f"{key}-{embedded}"


def _key(model: ModelFiles | None) -> str:
    """The model as data sees it, and this version of the rules."""
    digest = hashlib.sha256(_rules_digest())
    if model is not None:
        digest.update(f"{model.name}\n{model.limit_tokens}\n".encode())
        for path in _model_files(model):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _model_files(model: ModelFiles) -> list[Path]:
    folders = [Path(model.base_dir), *([] if model.template_dir is None else [Path(model.template_dir)])]
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return [folder / name for folder in folders for name in names if (folder / name).exists()]


@lru_cache(maxsize=1)
def _rules_digest() -> bytes:
    return hashlib.sha256(__version__.encode() + msgspec.json.encode(list(RULES.values()))).digest()

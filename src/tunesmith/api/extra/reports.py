"""Reports on data files: made once in the background, kept on the disk, asked for as often as one likes.

A report belongs to the file's content, that of a validation file where one is given, the model and this version of the
rules: ``home/cache/reports/<sha256>/<key>/`` with the report and all findings. It appears complete or not at all; what
a restart interrupts is begun again by the next request.
"""

import copy
import hashlib
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from tunesmith import __version__
from tunesmith.api.extra.data_process import REPORT_FILE, CheckTask, ModelFiles
from tunesmith.api.extra.data_tasks import DataTasks
from tunesmith.api.extra.kept_findings import KeptFindings
from tunesmith.api.extra.leftovers import locked
from tunesmith.api.wire.datasets import ReportFacts
from tunesmith.catalog.embedding import is_embedding_installed
from tunesmith.core.clock import monotonic_s
from tunesmith.core.errors import TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.settings import Settings
from tunesmith.data.rules import RULES

log = get_logger(__name__)

MAX_RUNNING = 2
"""Checks at once; others wait their turn."""


class FileToCheck(msgspec.Struct, frozen=True):
    sha256: str
    filename: str
    path: Path


class Place(NamedTuple):
    """What a report belongs to."""

    sha256: str
    key: str
    validation_sha256: str | None

    @property
    def contents(self) -> set[str]:
        return {self.sha256} if self.validation_sha256 is None else {self.sha256, self.validation_sha256}


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

    def facts(self) -> ReportFacts:
        return msgspec.json.decode((self._folder / REPORT_FILE).read_bytes(), type=ReportFacts)

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
        self._running: dict[Place, Running] = {}
        self._failed: dict[Place, TunesmithError] = {}
        self._forgotten: set[str] = set()
        self._lock = threading.Lock()

    def folder_of(self, sha256: str) -> Path:
        """Where everything that was derived from a file's content is kept."""
        return self._dir / sha256

    def get(
        self,
        file: FileToCheck,
        model: ModelFiles | None,
        validation: FileToCheck | None = None,
        *,
        refresh: bool = False,
    ) -> Report | Running:
        """The report, or the check that is making it; starts one where there is neither.

        ``refresh`` makes a new one of a finished or failed check. Raises the error with which the check failed.
        """
        place = Place(file.sha256, _key(model), None if validation is None else validation.sha256)
        with self._lock:
            running = self._running.get(place)
            if running is not None:
                return running
            error = self._failed.get(place)
            if error is not None and not refresh:
                raise copy.copy(error)  # with a traceback of its own: that of one error raised again grows each time
            kept = self._kept(place)
            if kept is not None and not refresh:
                return kept
            self._forgotten -= place.contents
            self._failed.pop(place, None)
            running = self._running[place] = Running()
        self._pool.submit(self._work, place, running, self._task(file, model, validation))
        return running

    def find(self, sha256: str, model: ModelFiles | None, validation_sha256: str | None = None) -> Report | None:
        """The finished report, if there is one."""
        return self._kept(Place(sha256, _key(model), validation_sha256))

    def facts_of_each(self, contents: Iterable[str], model: ModelFiles | None) -> dict[str, ReportFacts]:
        """What the finished reports on these contents say, by their digest."""
        key, facts = _key(model), {}
        for sha256 in set(contents):
            report = self._kept(Place(sha256, key, None))
            if report is not None:
                with suppress(FileNotFoundError):  # forgotten at this moment
                    facts[sha256] = report.facts()
        return facts

    def forget(self, sha256: str) -> None:
        """Delete all that was derived from a content, now or when its check ends."""
        with self._lock:
            self._forgotten.add(sha256)
            KeptFindings.of.cache_clear()
            for folder in [self.folder_of(sha256), *self._dir.glob(f"*/*-{sha256}-?")]:
                shutil.rmtree(folder, ignore_errors=True)

    def tidy(self, list_known: Callable[[], set[str]]) -> None:
        """At the start: delete what belongs to none of these digests. They are asked for last: of a content that
        another server gets meanwhile no folder is looked at."""
        folders = list(self._dir.glob("*"))
        known = list_known()
        for folder in folders:
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
            for report in folder.glob("*-*-?"):
                if report.name.split("-")[1] not in known:
                    shutil.rmtree(report, ignore_errors=True)

    def stop(self) -> None:
        """End running checks; the next server begins them again when it is asked."""
        self._tasks.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(self, place: Place, running: Running, task_in: Callable[[Path], CheckTask]) -> None:
        running.began_at_s = monotonic_s()
        made = self.folder_of(place.sha256) / f".making-{secrets.token_hex(8)}"
        try:
            made.mkdir(parents=True)
            with locked(made):
                self._tasks.run(task_in(made), lambda fraction: setattr(running, "fraction", fraction))
            self._put(made, place)
        except TunesmithError as error:
            self._note_failure(place, error)
        except Exception as error:  # the edge of this thread: without a note every poll would begin the check again
            log.exception("The check of %s broke off", place.sha256)
            self._note_failure(place, _broken_off(error))
        finally:
            shutil.rmtree(made, ignore_errors=True)
            with self._lock:
                self._running.pop(place)

    def _task(
        self, file: FileToCheck, model: ModelFiles | None, validation: FileToCheck | None
    ) -> Callable[[Path], CheckTask]:
        """The task, once it is known where to."""
        return lambda out_dir: CheckTask(
            path=str(file.path),
            filename=file.filename,
            model=model,
            validation_path=None if validation is None else str(validation.path),
            out_dir=str(out_dir),
            home=str(self._settings.home),
            engine_threads=self._settings.engine_threads,
        )

    def _put(self, made: Path, place: Place) -> None:
        """Make what was made visible. Whether texts were compared is part of its name: see ``_folder``."""
        with self._lock:
            if place.contents & self._forgotten:
                return
            target = self._folder(place)
            if target.is_dir():
                target.rename(made.with_name(made.name + ".old"))
            made.rename(target)
            KeptFindings.of.cache_clear()
        shutil.rmtree(made.with_name(made.name + ".old"), ignore_errors=True)

    def _note_failure(self, place: Place, error: TunesmithError) -> None:
        with self._lock:
            if not place.contents & self._forgotten:
                self._failed[place] = error

    def _kept(self, place: Place) -> Report | None:
        folder = self._folder(place)
        return Report(folder) if folder.is_dir() else None

    def _folder(self, place: Place) -> Path:
        """A report without the embedding model is not the one that is asked for once the model is there."""
        embedded = "e" if is_embedding_installed(self._settings) else "n"
        parts = [place.key, *([] if place.validation_sha256 is None else [place.validation_sha256]), embedded]
        return self.folder_of(place.sha256) / "-".join(parts)


def _broken_off(error: Exception) -> TunesmithError:
    """What the client is told: of the system's errors their words, never a path; of a bug nothing."""
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return TunesmithError(
        f"The file could not be checked{reason}.",
        code="check_failed",
        mend="The server's log tells more. Ask again with refresh=true.",
    )


def _key(model: ModelFiles | None) -> str:
    """The model as data sees it, and this version of the rules."""
    digest = hashlib.sha256(_rules_digest())
    if model is not None:
        digest.update(f"{model.name}\n{model.limit_tokens}\n{model.completions}\n".encode())
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

"""Generations that this server runs: each in a thread with a loop of its own, its truth in its folder.

A key comes with the request that starts or resumes a run, lives in that run's HTTP client, and is written nowhere.
"""

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.api.extra.generate_tasks import GenerateTasks
from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import Conflict, InvalidRequest, NotFound, TooManyRequests
from tunesmith.core.ids import stable_id
from tunesmith.core.log import get_logger
from tunesmith.core.settings import Settings
from tunesmith.data.generate.guard import AddressGuard, GuardedTransport
from tunesmith.data.generate.journal import Journal, ask_to_cancel, is_running
from tunesmith.data.generate.report import Report
from tunesmith.data.generate.request import Caps, GenerateRequest, plain, read_request, require_sound
from tunesmith.data.generate.run import GenerationRun, create_generation
from tunesmith.data.generate.sources import Sources, read_kept_sources
from tunesmith.data.generate.teacher import Teacher
from tunesmith.data.generate.view import (
    View,
    Views,
    change_caps,
    created_at,
    delete_generation,
    expiry_of,
    find_generation,
    generations_dir,
    list_generations,
    require_resumable,
)
from tunesmith.store.blobs import CHUNK_BYTES, BlobFacts, BlobStore
from tunesmith.store.db import Database
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.tables import FileRow

log = get_logger(__name__)

MAX_RUNNING = 4
STOP_WITHIN_S = 5.0
SEED_PURPOSES = ("fine-tune",)
DOCUMENT_PURPOSES = ("user_data", "assistants")


@dataclass(frozen=True)
class TeacherAccess:
    """How a run reaches its teacher. ``own_url`` is this server's address: asked there, it needs no guard."""

    api_key: str | None = field(repr=False)
    own_url: str


@dataclass(frozen=True)
class _Files:
    seeds: list[FileRow]
    documents: list[FileRow]


@dataclass
class _Live:
    run: GenerationRun
    journal: Journal
    thread: threading.Thread | None = None
    loop: asyncio.AbstractEventLoop | None = None
    task: "asyncio.Task[None] | None" = None


class Generations:
    """Starts, resumes, cancels. Every method may be called from any thread."""

    def __init__(self, settings: Settings, database: Database, blobs: BlobStore):
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._guard = AddressGuard(settings.teacher_hosts)
        self._tasks = GenerateTasks(settings)
        self._live: dict[str, _Live] = {}
        self._places = threading.BoundedSemaphore(MAX_RUNNING)
        self.views = Views()

    def create(self, request: GenerateRequest, access: TeacherAccess) -> Path:
        """Read the sources, make the folder, start the run; the folder. Raises InvalidRequest and its kin for what is
        wrong with the request, its files or its teacher's address, TooManyRequests where there is no place for it."""
        require_sound(request)
        self._check_address(request)
        folder = generations_dir(self._settings) / request.id
        with self._place():
            rows = self._find_files(request)
            request = msgspec.structs.replace(request, expires_at=_first_expiry(rows))
            create_generation(folder, request, self._read_sources(request, rows))
            self._start(folder, Caps(), access)
        return folder

    def resume(self, generation_id: str, caps: Caps, access: TeacherAccess) -> Path:
        """Go on, under new caps where some are given. Raises NotFound, Conflict, TooManyRequests; nothing is changed
        then."""
        folder = self.find(generation_id)
        view = self.views.of(folder)
        require_resumable(view, caps)
        self._check_address(view.request)
        with self._place():
            self._start(folder, caps, access)
        return folder

    def cancel(self, generation_id: str) -> Path:
        """Ask the run to stop when the calls in flight are answered, in whichever process it is. Raises NotFound,
        Conflict."""
        folder = self.find(generation_id)
        if self.views.of(folder).status != "running":
            raise Conflict(
                f"{generation_id} is not running.", code="generation_ended", mend="There is nothing to cancel."
            )
        ask_to_cancel(folder)
        return folder

    def delete(self, generation_id: str) -> None:
        """Raises NotFound, Conflict while it runs."""
        delete_generation(self.find(generation_id))

    def find(self, generation_id: str) -> Path:
        """Raises NotFound."""
        self._forget_if_expired(find_generation(self._settings, generation_id))
        return find_generation(self._settings, generation_id)

    def list_page(self, after: str | None, limit: int) -> tuple[list[View], bool]:
        """Newest first, and whether more follow. Raises InvalidRequest when there is none ``after``."""
        ages: dict[Path, int] = {}
        for folder in list(list_generations(self._settings)):
            with suppress(NotFound):  # it was deleted at this moment
                self._forget_if_expired(folder)
                ages[folder] = -created_at(folder)
        folders = sorted(ages, key=lambda folder: (ages[folder], folder.name))
        names = [folder.name for folder in folders]
        if after is not None and after not in names:
            raise InvalidRequest(f"There is nothing with the id {after!r} to go on after.", param="after")
        first = 0 if after is None else names.index(after) + 1
        views = []
        for folder in folders[first : first + limit]:
            with suppress(NotFound):
                views.append(self.views.of(folder))
        return views, len(folders) > first + limit

    def _forget_if_expired(self, folder: Path) -> None:
        """It holds copies of its files: whoever wanted those gone by now wants it gone too."""
        expires_at = expiry_of(folder)
        if expires_at is not None and expires_at <= unix_now_s() and not is_running(folder):
            with suppress(Conflict):  # it was started at this moment
                delete_generation(folder)

    def stop(self) -> None:
        """End every run as interrupted, at once: they can be resumed."""
        lives = list(self._live.values())
        for live in lives:
            live.run.stop("interrupted")
            if live.loop is not None and live.task is not None:
                live.loop.call_soon_threadsafe(live.task.cancel)
        self._tasks.stop()
        for live in lives:
            if live.thread is not None:
                live.thread.join(STOP_WITHIN_S)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place among those that run, kept when the run has started and given back when it could not."""
        if not self._places.acquire(blocking=False):
            raise TooManyRequests(
                f"{MAX_RUNNING} generations are running, the most at once.",
                code="generations_busy",
                mend="Wait for one to end, or cancel one; then start or resume this one.",
            )
        try:
            yield
        except BaseException:
            self._places.release()
            raise

    def _start(self, folder: Path, caps: Caps, access: TeacherAccess) -> None:
        journal = Journal(folder)
        try:
            request = change_caps(folder, read_request(folder), caps)
            deliver = partial(self._keep_rows, request)
            run = GenerationRun(folder, request, read_kept_sources(folder), journal, self._tasks.judge, deliver)
        except BaseException:
            journal.close()
            raise
        live = self._live[request.id] = _Live(run, journal)
        live.thread = threading.Thread(target=self._work, args=(live, request, access), name=request.id, daemon=True)
        live.thread.start()

    def _work(self, live: _Live, request: GenerateRequest, access: TeacherAccess) -> None:
        try:
            asyncio.run(self._drive(live, request, access))
        except asyncio.CancelledError:
            log.info("%s was interrupted; it can be resumed", request.id)
        except Exception:  # the edge of this thread: the folder then shows an interrupted run
            log.exception("%s broke off", request.id)
        finally:
            self._live.pop(request.id, None)
            self._places.release()
            live.journal.close()

    async def _drive(self, live: _Live, request: GenerateRequest, access: TeacherAccess) -> None:
        live.loop, live.task = asyncio.get_running_loop(), asyncio.current_task()
        async with self._teacher(request, access) as teacher:
            await live.run.run(teacher)

    def _teacher(self, request: GenerateRequest, access: TeacherAccess) -> Teacher:
        if request.teacher_url is None:
            return Teacher(access.own_url, request.teacher_model, access.api_key)
        transport = GuardedTransport(self._guard)
        return Teacher(request.teacher_url, request.teacher_model, access.api_key, transport=transport)

    def _check_address(self, request: GenerateRequest) -> None:
        """Refused at once where it can be; the guard looks again at every call."""
        if request.teacher_url is not None:
            asyncio.run(self._guard.check(request.teacher_url))

    def _find_files(self, request: GenerateRequest) -> "_Files":
        return _Files(
            seeds=[self._find(file_id, "seeds", SEED_PURPOSES) for file_id in request.seed_files],
            documents=[self._find(file_id, "documents", DOCUMENT_PURPOSES) for file_id in request.documents],
        )

    def _read_sources(self, request: GenerateRequest, rows: "_Files") -> Sources:
        with tempfile.TemporaryDirectory(prefix="tunesmith-generate-") as name:
            room = Path(name)
            seeds = [self._local_file(row, room)[0] for row in rows.seeds]
            documents = [self._local_file(row, room) for row in rows.documents]
            return self._tasks.read_sources(seeds, documents, request.seed, room)

    def _local_file(self, row: FileRow, room: Path) -> tuple[Path, str]:
        path = self._blobs.path(row.id)
        if path is None:
            path = room / row.id
            self._blobs.fetch(row.id, path)
        return path, row.filename

    def _find(self, file_id: str, param: str, purposes: Sequence[str]) -> FileRow:
        with self._database.reading() as session:
            row = FileRepo(session).get(file_id)
        if row is None or (row.expires_at is not None and row.expires_at <= unix_now_s()):
            raise InvalidRequest(f"There is no file {file_id!r}.", code="invalid_file", param=param)
        if row.purpose not in purposes:
            raise InvalidRequest(
                f"{file_id} was uploaded for {row.purpose!r}, not for {' or '.join(map(repr, purposes))}.",
                code="invalid_file",
                param=param,
                mend=f"Upload it again with the purpose {purposes[0]!r}.",
            )
        return row

    def _keep_rows(self, request: GenerateRequest, rows: Path, report: Report) -> str:
        """The rows as a file for fine-tuning. The same rows of the same generation are the same file."""
        with rows.open("rb") as file:
            file_id = stable_id("file-", request.id, hashlib.file_digest(file, "sha256").hexdigest())
        with self._database.reading() as session:
            if FileRepo(session).get(file_id) is not None:
                return file_id
        facts = self._write_blob(rows, file_id)
        with self._database.session() as session:
            FileRepo(session).add(_file_row(file_id, facts, request, report))
        return file_id

    def _write_blob(self, rows: Path, key: str) -> BlobFacts:
        writer = self._blobs.open_writer()
        try:
            with rows.open("rb") as file:
                while piece := file.read(CHUNK_BYTES):
                    writer.write(piece)
        except BaseException:
            writer.abort()
            raise
        return writer.commit(key)


def _first_expiry(files: _Files) -> int | None:
    return min((row.expires_at for row in [*files.seeds, *files.documents] if row.expires_at is not None), default=None)


def _file_row(file_id: str, facts: BlobFacts, request: GenerateRequest, report: Report) -> FileRow:
    return FileRow(
        id=file_id,
        created_at=unix_now_s(),
        bytes=facts.num_bytes,
        filename=f"{request.id}.jsonl",
        purpose="fine-tune",
        status="processed",
        expires_at=request.expires_at,
        sha256=facts.sha256,
        parent_id=next(iter([*request.seed_files, *request.documents]), None),
        lineage=_lineage(request, report),
    )


def _lineage(request: GenerateRequest, report: Report) -> dict[str, Any]:
    """How the file was made: the plan, the teacher, the seed and what came of it. Never a key, never a dropped text."""
    return {
        "action": "generate",
        "generation": request.id,
        "teacher_model": request.teacher_model,
        "teacher_url": request.teacher_url,
        "seed": request.seed,
        "seeds": list(request.seed_files),
        "documents": list(request.documents),
        "plan": {
            "rows": request.rows,
            "topics": list(request.topics),
            "tones": list(request.tones),
            "lengths": list(request.lengths),
            "system": request.system,
        },
        "num_rows": report.num_rows,
        "stopped_by": report.stopped_by,
        "dropped": {group.rule: group.count for group in report.dropped},
        "total_tokens": report.usage.total_tokens,
        "cost": plain(report.usage.cost),
    }

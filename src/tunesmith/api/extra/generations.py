"""Generations that this server runs: each in a thread with a loop of its own, its truth in its folder.

A key comes with the request that starts or resumes a run, lives in that run's HTTP client, and is written nowhere.
"""

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith.catalog.embedding import is_embedding_installed
from tunesmith.core.clock import unix_now_s
from tunesmith.core.errors import Conflict, InvalidRequest, TooManyRequests
from tunesmith.core.ids import stable_id
from tunesmith.core.log import get_logger
from tunesmith.core.settings import Settings
from tunesmith.data.generate.diagnosis import Doctor
from tunesmith.data.generate.guard import AddressGuard, GuardedTransport
from tunesmith.data.generate.journal import Journal
from tunesmith.data.generate.report import Report
from tunesmith.data.generate.request import Caps, GenerateRequest, require_sound
from tunesmith.data.generate.run import GenerationRun, create_generation
from tunesmith.data.generate.sources import Sources, read_kept_sources, read_sources
from tunesmith.data.generate.teacher import Teacher
from tunesmith.data.generate.view import (
    change_caps,
    find_generation,
    generations_dir,
    require_resumable,
    view_generation,
)
from tunesmith.serving.engines.embedding import Embedder
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


@dataclass
class _Live:
    run: GenerationRun
    journal: Journal
    embedder: Embedder
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
        self._live: dict[str, _Live] = {}
        self._lock = threading.Lock()

    def create(self, request: GenerateRequest, access: TeacherAccess) -> Path:
        """Read the sources, make the folder, start the run; the folder. Raises InvalidRequest and its kin for what is
        wrong with the request, its files or its teacher's address."""
        require_sound(request)
        self._check_address(request)
        folder = generations_dir(self._settings) / request.id
        create_generation(folder, request, self._read_sources(request))
        self._start(folder, request, access)
        return folder

    def resume(self, generation_id: str, caps: Caps, access: TeacherAccess) -> Path:
        """Go on, under new caps where some are given. Raises NotFound, Conflict."""
        folder = find_generation(self._settings, generation_id)
        view = view_generation(folder)
        require_resumable(view, caps)
        self._check_address(view.request)
        self._start(folder, change_caps(folder, view.request, caps), access)
        return folder

    def cancel(self, generation_id: str) -> Path:
        """Ask the run to stop when the calls in flight are answered. Raises NotFound, Conflict."""
        folder = find_generation(self._settings, generation_id)
        live = self._live.get(generation_id)
        if live is None:
            raise Conflict(
                f"{generation_id} is not running in this server.",
                code="generation_ended",
                mend="There is nothing to cancel.",
            )
        live.run.stop("cancelled")
        return folder

    def stop(self) -> None:
        """End every run as interrupted, at once: they can be resumed."""
        for live in list(self._live.values()):
            live.run.stop("interrupted")
            if live.loop is not None and live.task is not None:
                live.loop.call_soon_threadsafe(live.task.cancel)
        for live in list(self._live.values()):
            if live.thread is not None:
                live.thread.join(STOP_WITHIN_S)

    def _start(self, folder: Path, request: GenerateRequest, access: TeacherAccess) -> None:
        with self._lock:
            if len(self._live) >= MAX_RUNNING:
                raise TooManyRequests(
                    f"{MAX_RUNNING} generations are running, the most at once.",
                    code="generations_busy",
                    mend="Wait for one to end, or cancel one; then start or resume this one.",
                )
            journal = Journal(folder)
            embedder = Embedder(self._settings)
            embed = embedder.embed if is_embedding_installed(self._settings) else None
            doctor, deliver = Doctor(self._settings, embed), partial(self._keep_rows, request)
            run = GenerationRun(folder, request, read_kept_sources(folder), journal, doctor, deliver)
            live = self._live[request.id] = _Live(run, journal, embedder)
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
            live.embedder.close()
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

    def _read_sources(self, request: GenerateRequest) -> Sources:
        with tempfile.TemporaryDirectory(prefix="tunesmith-generate-") as room:
            seeds = self._local_files(request.seed_files, "seeds", SEED_PURPOSES, Path(room))
            documents = self._local_files(request.documents, "documents", DOCUMENT_PURPOSES, Path(room))
            return read_sources([path for path, _ in seeds], documents, request.seed)

    def _local_files(
        self, file_ids: Sequence[str], param: str, purposes: Sequence[str], room: Path
    ) -> list[tuple[Path, str]]:
        return [self._local_file(self._find(file_id, param, purposes), room) for file_id in file_ids]

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


def _file_row(file_id: str, facts: BlobFacts, request: GenerateRequest, report: Report) -> FileRow:
    return FileRow(
        id=file_id,
        created_at=unix_now_s(),
        bytes=facts.num_bytes,
        filename=f"{request.id}.jsonl",
        purpose="fine-tune",
        status="processed",
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
        "cost": report.usage.cost,
    }

"""Who sees to the jobs: claims, prepares, starts, watches, restarts and finishes them.

One daemon thread looks every ``poll_s``. Several supervisors, also on several servers, may share a database: each
owns the jobs on which it holds a lease, and loses them when it stops renewing. A supervisor keeps nothing that
matters in memory: the one that takes over reads the run directory from ``event_offset_bytes`` on.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tunesmith.core.clock import monotonic_s, unix_now_s
from tunesmith.core.errors import TrainerError, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.core.settings import Settings
from tunesmith.core.types import RunResult
from tunesmith.jobs import record
from tunesmith.jobs.launchers.local import LocalLauncher
from tunesmith.jobs.prepare import Prepared, describe_failure
from tunesmith.jobs.preparer import Preparer
from tunesmith.jobs.record import HeldJob
from tunesmith.jobs.rundir import RunDir
from tunesmith.store.blobs import BlobFacts, BlobStore
from tunesmith.store.db import Database
from tunesmith.store.expiry import Forget, delete_expired_files, forget_nothing
from tunesmith.store.repos.jobs import JobRepo
from tunesmith.store.repos.models import ModelRepo
from tunesmith.store.tables import JobRow

log = get_logger(__name__)

# A preparation that fails for another reason than the data (a store that is away) is tried this often.
MAX_PREPARATIONS = 5
# Jobs in validation that one supervisor claims before their turn; more are left to other servers.
MAX_WAITING = 16
COPY_BYTES = 2**20
EXPIRY_PERIOD_S = 60.0


class LeaseLost(Exception):
    """Another supervisor has taken the job: ours leaves it alone from now on."""


class Supervisor:
    """``launcher`` is the local one unless given. ``forget`` is told which contents have gone with expired files.
    ``start`` and ``stop`` once each."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: BlobStore,
        launcher: LocalLauncher | None = None,
        forget: Forget = forget_nothing,
    ):
        self.owner = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._launcher = launcher or LocalLauncher(settings.trainer_threads)
        self._forget = forget
        self._job_ids: list[str] = []
        self._preparer = Preparer(settings, blobs)
        self._renewed_at = monotonic_s()
        self._expired_at = float("-inf")
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tunesmith-supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop looking, and give up the leases. Running trainers run on; the next supervisor finds them."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._attempt("release the leases", self._release_all)

    def look(self) -> None:
        """One round: renew leases, see to every job once, claim what waits and see to that too."""
        self._launcher.reap()
        self._attempt("renew the leases", self._renew)
        known = list(self._job_ids)
        self._see_to_all(known)
        self._attempt("claim jobs", self._claim)
        self._see_to_all([job_id for job_id in self._job_ids if job_id not in known])
        self._attempt("delete expired files", self._delete_expired_files)

    def _see_to_all(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            self._attempt(f"see to {job_id}", partial(self._see_to, job_id))

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            self.look()
            self._is_stopping.wait(self._settings.poll_s)

    def _attempt(self, what: str, do: Callable[[], None]) -> None:
        """The supervisor's process edge: a database that is away for a moment, or one bad job, must not end it."""
        try:
            do()
        except Exception:
            log.exception("Could not %s; trying again.", what)

    def _renew(self) -> None:
        if not self._job_ids or monotonic_s() - self._renewed_at < self._settings.lease_s / 4:
            return
        with self._database.session() as session:
            kept = JobRepo(session).renew(self._job_ids, self.owner, now=time.time(), lease_s=self._settings.lease_s)
        self._renewed_at = monotonic_s()
        self._job_ids = [job_id for job_id in self._job_ids if job_id in kept]

    def _claim(self) -> None:
        while len(self._job_ids) < self._settings.max_running_jobs + MAX_WAITING:
            with self._database.session() as session:
                job = JobRepo(session).claim_next(
                    self.owner,
                    now=time.time(),
                    lease_s=self._settings.lease_s,
                    max_running=self._settings.max_running_jobs,
                )
            if job is None:
                return
            log.info("Attending to %s (%s).", job.id, job.status)
            if job.id not in self._job_ids:
                self._job_ids.append(job.id)

    def _delete_expired_files(self) -> None:
        if monotonic_s() - self._expired_at < EXPIRY_PERIOD_S:
            return
        delete_expired_files(self._database, self._blobs, unix_now_s(), self._forget)
        self._expired_at = monotonic_s()

    def _release_all(self) -> None:
        with self._database.session() as session:
            JobRepo(session).release(self._job_ids, self.owner)
        self._job_ids = []

    def _see_to(self, job_id: str) -> None:
        with self._database.reading() as session:
            job = JobRepo(session).get(job_id)
        try:
            if job is None or job.lease_owner != self.owner:
                raise LeaseLost
            self._advance(job)
        except LeaseLost:
            self._leave(job_id)
        except TrainerError as error:
            self._give_up(job_id, error)

    def _advance(self, job: JobRow) -> None:
        """Do the next thing for a job, by its status."""
        if job.status == "validating_files":
            self._prepare(job)
        elif job.status == "queued" and job.occupies_machine:
            self._start(job)
        elif job.occupies_machine:
            self._watch(job)
        else:
            self._release(job.id)

    @contextmanager
    def _held(self, job_id: str) -> Iterator[HeldJob]:
        """A transaction in which the job is ours and nobody else can change it. Raises ``LeaseLost``."""
        with self._database.session() as session:
            row = JobRepo(session).hold(job_id, self.owner, now=time.time(), lease_s=self._settings.lease_s)
            if row is None:
                raise LeaseLost
            yield HeldJob(self._settings, session, row)

    def _release(self, job_id: str) -> None:
        with self._database.session() as session:
            JobRepo(session).release([job_id], self.owner)
        self._leave(job_id)

    def _leave(self, job_id: str) -> None:
        self._preparer.forget(job_id)
        if job_id in self._job_ids:
            self._job_ids.remove(job_id)
        self._launcher.forget(self._settings.runs_dir / job_id)

    def _prepare(self, job: JobRow) -> None:
        if self._preparer.has(job.id):
            done = self._preparer.take(job.id)
            if done is not None:
                self._finish_preparation(job.id, done)
        elif self._preparer.is_idle:
            self._preparer.begin(job, self._start_dir(job))

    def _finish_preparation(self, job_id: str, done: "Future[Prepared]") -> None:
        error = done.exception()
        if error is not None and not isinstance(error, TunesmithError):
            self._count_failure(job_id, error)
            return
        with self._held(job_id) as job:
            if job.row.status != "validating_files":  # cancelled meanwhile
                return
            if error is None:
                record.record_prepared(job, done.result())
            else:
                failure = describe_failure(error)
                record.record_failed(job, failure.code, failure.message, param=failure.param)
        # The queue is everybody's: whoever has a free place takes the oldest job.
        self._release(job_id)

    def _count_failure(self, job_id: str, error: BaseException) -> None:
        """Something else than the data is wrong: try again, but not for ever."""
        tries = self._preparer.count_failure(job_id)
        log.error("Preparing %s failed (%d of %d).", job_id, tries, MAX_PREPARATIONS, exc_info=error)
        if tries >= MAX_PREPARATIONS:
            with self._held(job_id) as job:
                record.record_failed(job, "preparation_failed", f"The files could not be checked: {error}")

    def _start_dir(self, job: JobRow) -> Path | None:
        if job.start_checkpoint_id is None:
            return None
        with self._database.reading() as session:
            start = ModelRepo(session).get(job.start_checkpoint_id)
        return None if start is None else self._settings.home / start.dir

    def _start(self, job: JobRow) -> None:
        run_dir = self._run_dir(job)
        with self._held(job.id) as held:
            if held.row.status != "queued":
                return
            is_resumed = run_dir.has_checkpoints()
            run_dir.clear_for_start()
            record.record_started(held, is_resumed=is_resumed)
        self._launcher.start(run_dir.path)

    def _watch(self, job: JobRow) -> None:
        run_dir = self._run_dir(job)
        # Asked before the events are read: what a dead trainer wrote is then read completely.
        is_alive = self._launcher.is_alive(run_dir.path)
        events, offset_bytes = run_dir.read_events(job.event_offset_bytes)
        if offset_bytes != job.event_offset_bytes:
            with self._held(job.id) as held:
                # Read under an older offset: another supervisor may have been here between.
                if held.row.event_offset_bytes == job.event_offset_bytes:
                    record.record_events(held, events, offset_bytes)
        elif is_alive:
            self._press(job, run_dir)
        else:
            self._conclude(job, run_dir)

    def _press(self, job: JobRow, run_dir: RunDir) -> None:
        """See that a living trainer obeys: remind it of a wish, and kill it when it ignores a cancel too long."""
        if job.requested_action is None or job.requested_at is None:
            return
        if not run_dir.has_wish():
            run_dir.ask("pause" if job.requested_action == "pause" else "cancel")
        if job.requested_action == "cancel" and time.time() - job.requested_at > self._settings.cancel_grace_s:
            self._launcher.kill(run_dir.path)

    def _conclude(self, job: JobRow, run_dir: RunDir) -> None:
        """The trainer is gone and everything it wrote is stored: end the job, or start the trainer again."""
        result = run_dir.read_result()
        if result is not None and result.status == "succeeded" and job.status == "running":
            self._succeed(job, run_dir, result)
            return
        with self._held(job.id) as held:
            must_restart = self._conclude_unsuccessful(held, run_dir, result)
        if must_restart:
            self._launcher.start(run_dir.path)

    def _succeed(self, job: JobRow, run_dir: RunDir, result: RunResult) -> None:
        results_file = self._store_results(job.id, run_dir.results_csv)
        with self._held(job.id) as held:
            if held.row.status == "running":
                record.record_succeeded(held, result, results_file)

    def _conclude_unsuccessful(self, job: HeldJob, run_dir: RunDir, result: RunResult | None) -> bool:
        """Returns whether the trainer is to be started again."""
        if job.row.status != "running":
            record.record_gone(job, result)
        elif result is None:
            return self._conclude_death(job, run_dir)
        elif result.status == "failed" and result.error is not None:
            error = result.error
            record.record_failed(job, error.code, error.message, result, param=error.param)
        elif result.status == "paused":
            record.record_paused(job, result.step)
        else:
            message = f"The trainer ended as {result.status} and nobody asked it to."
            record.record_failed(job, "trainer_error", message, result)
        return False

    def _conclude_death(self, job: HeldJob, run_dir: RunDir) -> bool:
        if job.row.requested_action == "pause":
            record.record_paused(job, None)
            return False
        if job.row.num_restarts < self._settings.max_trainer_restarts:
            record.record_restart(job, self._launcher.exit_status(run_dir.path))
            return True
        message = f"The trainer died {job.row.num_restarts + 1} times. Its last words:\n{run_dir.read_log_tail()}"
        record.record_failed(job, "trainer_crashed", message)
        return False

    def _give_up(self, job_id: str, error: TrainerError) -> None:
        """What the trainer wrote makes no sense: no restart would mend that."""
        with self._held(job_id) as job:
            self._launcher.kill(self._run_dir(job.row).path)
            if job.row.status == "running":
                record.record_failed(job, error.code or "trainer_error", str(error))
            else:
                record.record_gone(job, None)

    def _store_results(self, job_id: str, path: Path) -> BlobFacts | None:
        """Keep results.csv as a file, plain CSV bytes."""
        if not path.exists():
            return None
        writer = self._blobs.open_writer()
        with path.open("rb") as file:
            while data := file.read(COPY_BYTES):
                writer.write(data)
        return writer.commit(record.results_file_id(job_id))

    def _run_dir(self, job: JobRow) -> RunDir:
        return RunDir(self._settings.home / job.run_dir)

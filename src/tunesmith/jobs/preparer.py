"""Preparation in a thread of its own: a large file must not keep the other jobs from being watched."""

import threading
from collections import Counter
from concurrent.futures import Future
from pathlib import Path

from tunesmith.core.settings import Settings
from tunesmith.jobs.prepare import Prepared, prepare
from tunesmith.store.blobs import BlobStore
from tunesmith.store.tables import JobRow


class Preparer:
    """Prepares one job at a time; the others wait for their turn. Used by one thread."""

    def __init__(self, settings: Settings, blobs: BlobStore):
        self._settings = settings
        self._blobs = blobs
        self._futures: dict[str, Future[Prepared]] = {}
        self._num_failures: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        return not self._futures

    def begin(self, job: JobRow, start_dir: Path | None) -> None:
        """Start to prepare. In a daemon thread: a server that is told to stop need not wait for a large file."""
        future: Future[Prepared] = Future()
        self._futures[job.id] = future

        def work() -> None:
            try:
                future.set_result(prepare(self._settings, self._blobs, job, start_dir))
            except Exception as error:  # noqa: BLE001  (handed to the supervisor's thread, which judges it)
                future.set_exception(error)

        threading.Thread(target=work, name=f"prepare-{job.id}", daemon=True).start()

    def has(self, job_id: str) -> bool:
        return job_id in self._futures

    def take(self, job_id: str) -> "Future[Prepared] | None":
        """The finished preparation of a job, once; None while it goes on."""
        future = self._futures[job_id]
        return self._futures.pop(job_id) if future.done() else None

    def count_failure(self, job_id: str) -> int:
        """How often the preparation of this job has failed now."""
        self._num_failures[job_id] += 1
        return self._num_failures[job_id]

    def forget(self, job_id: str) -> None:
        """The job is no longer ours; what still runs for it ends unheard."""
        self._futures.pop(job_id, None)
        self._num_failures.pop(job_id, None)

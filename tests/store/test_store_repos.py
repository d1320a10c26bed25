"""What the repositories promise, on both databases."""

import threading

import pytest
from store_rows import checkpoint_row, file_row, job_row, model_row

from tunesmith.core.errors import InvalidRequest
from tunesmith.store.db import Database
from tunesmith.store.repos.checkpoints import CheckpointRepo
from tunesmith.store.repos.events import EventRepo
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.repos.jobs import JobRepo
from tunesmith.store.repos.keys import KeyRepo
from tunesmith.store.repos.models import ModelRepo
from tunesmith.store.tables import KeyRow


def test_pages_are_newest_first_and_complete(database: Database) -> None:
    with database.session() as session:
        files = FileRepo(session)
        for number in range(5):
            files.add(file_row(f"file-{number}"))
        first, has_more = files.list_page(limit=2)
        assert ([row.id for row in first], has_more) == (["file-4", "file-3"], True)
        rest, has_more = files.list_page(after="file-3", limit=3)
        assert ([row.id for row in rest], has_more) == (["file-2", "file-1", "file-0"], False)
        oldest, _ = files.list_page(after="file-3", order="asc")
        assert [row.id for row in oldest] == ["file-4"]


def test_paging_after_an_unknown_row_is_an_error(database: Database) -> None:
    with database.reading() as session, pytest.raises(InvalidRequest) as caught:
        FileRepo(session).list_page(after="file-none")
    assert caught.value.param == "after"


def test_files_by_purpose_expiry_and_deletion(database: Database) -> None:
    with database.session() as session:
        files = FileRepo(session)
        files.add(file_row("file-1", purpose="batch", expires_at=100))
        files.add(file_row("file-2"))
        assert [row.id for row in files.list_page(purpose="batch")[0]] == ["file-1"]
        assert [row.id for row in files.list_expired(now=100)] == ["file-1"]
        assert files.list_expired(now=99) == []
        assert files.delete("file-1")
        assert not files.delete("file-1")
        assert files.get("file-1") is None


def test_jobs_are_found_by_every_pair_of_metadata(database: Database) -> None:
    quoted = {'a "quoted" key.with$signs': "v"}
    with database.session() as session:
        jobs = JobRepo(session)
        jobs.add(job_row("ftjob-1", user_metadata={"team": "a", "stage": "test"}))
        jobs.add(job_row("ftjob-2", user_metadata={"team": "a"} | quoted))
        jobs.add(job_row("ftjob-3"))

        def found(metadata: dict[str, str] | None) -> list[str]:
            return [row.id for row in jobs.list_page(metadata=metadata)[0]]

        assert found({"team": "a"}) == ["ftjob-2", "ftjob-1"]
        assert found({"team": "a", "stage": "test"}) == ["ftjob-1"]
        assert found({"team": "b"}) == []
        assert found(quoted) == ["ftjob-2"]
        assert found({}) == ["ftjob-3"]
        assert found(None) == ["ftjob-3", "ftjob-2", "ftjob-1"]


def test_an_event_is_stored_once(database: Database) -> None:
    with database.session() as session:
        JobRepo(session).add(job_row("ftjob-1"))
        events = EventRepo(session)
        assert events.add("ftjob-1", source="trainer", source_seq=1, created_at=5, message="once")
        assert not events.add("ftjob-1", source="trainer", source_seq=1, created_at=6, message="twice")
        events.add_from_server("ftjob-1", 7, "first")
        events.add_from_server("ftjob-1", 8, "second", data={"step": 3})
        rows, has_more = events.list_page("ftjob-1")
        assert [(row.source, row.source_seq, row.message) for row in rows] == [
            ("server", 2, "second"),
            ("server", 1, "first"),
            ("trainer", 1, "once"),
        ]
        assert rows[0].data == {"step": 3}
        assert not has_more


def test_checkpoints_best_last_and_deleted(database: Database) -> None:
    with database.session() as session:
        JobRepo(session).add(job_row("ftjob-1"))
        checkpoints = CheckpointRepo(session)
        for step in (10, 20, 30):
            checkpoints.add(checkpoint_row("ftjob-1", step, is_best=step == 10))
        checkpoints.mark_best("ftjob-1", 20)
        checkpoints.mark_deleted("ftjob-1", [30])
        session.expire_all()
        listed, _ = checkpoints.list_page("ftjob-1")
        assert [(row.step, row.is_best) for row in listed] == [(20, True), (10, False)]
        last = checkpoints.get_last("ftjob-1")
        assert last is not None
        assert last.step == 20


def test_a_deleted_model_no_longer_answers(database: Database) -> None:
    with database.session() as session:
        JobRepo(session).add(job_row("ftjob-1"))
        models = ModelRepo(session)
        models.add(model_row("ft:a", job_id="ftjob-1", checkpoint_step=1))
        models.add(model_row("ft:b", job_id="ftjob-1", checkpoint_step=2))
        models.add(model_row("ft:c", checkpoint_step=2))
        assert [row.id for row in models.list_of_job("ftjob-1")] == ["ft:b", "ft:a"]
        models.mark_steps_deleted("ftjob-1", [2])
        assert models.get("ft:b") is None
        assert models.delete("ft:a")
        assert not models.delete("ft:a")
        assert [row.id for row in models.list_all()] == ["ft:c"]


def test_a_revoked_key_is_not_found(database: Database) -> None:
    with database.session() as session:
        keys = KeyRepo(session)
        keys.add(KeyRow(id="key_1", name="first", sha256="abc", prefix="sk-abc", created_at=1))
        keys.touch("key_1", 9)
        found = keys.find_by_sha256("abc")
        assert found is not None
        session.refresh(found)
        assert found.last_used_at == 9
        assert keys.revoke("key_1", 10)
        assert keys.find_by_sha256("abc") is None
        assert keys.count() == 1


def test_a_lease_is_taken_kept_lost_and_released(database: Database) -> None:
    with database.session() as session:
        JobRepo(session).add(job_row("ftjob-1"))
    lease = {"lease_s": 10.0, "max_running": 1}
    with database.session() as session:
        jobs = JobRepo(session)
        claimed = jobs.claim_next("a", now=100.0, **lease)
        assert claimed is not None
        assert claimed.id == "ftjob-1"
        assert jobs.claim_next("b", now=109.0, **lease) is None
        assert jobs.hold("ftjob-1", "a", now=109.0, lease_s=10.0) is not None
        assert jobs.claim_next("b", now=115.0, **lease) is None
        assert jobs.hold("ftjob-1", "b", now=115.0, lease_s=10.0) is None
        assert jobs.claim_next("b", now=120.0, **lease) is not None
        assert jobs.hold("ftjob-1", "a", now=121.0, lease_s=10.0) is None
        assert jobs.renew(["ftjob-1"], "a", now=121.0, lease_s=10.0) == set()
        assert jobs.renew(["ftjob-1"], "b", now=121.0, lease_s=10.0) == {"ftjob-1"}
        jobs.release(["ftjob-1"], "b")
        assert jobs.claim_next("c", now=122.0, **lease) is not None


def test_the_queue_is_by_age_and_bounded_over_all_owners(database: Database) -> None:
    with database.session() as session:
        jobs = JobRepo(session)
        for number in range(4):
            jobs.add(job_row(f"ftjob-{number}", status="queued"))
        claimed = [jobs.claim_next(owner, now=1.0, lease_s=10.0, max_running=2) for owner in ("a", "b", "c")]
        assert [job.id if job else None for job in claimed] == ["ftjob-0", "ftjob-1", None]
        # A cancelled job whose trainer still runs keeps its place, and can be taken over when its owner dies.
        assert claimed[0] is not None
        claimed[0].status = "cancelled"
        session.flush()
        assert jobs.claim_next("c", now=2.0, lease_s=10.0, max_running=2) is None
        taken = jobs.claim_next("c", now=20.0, lease_s=10.0, max_running=2)
        assert taken is not None
        assert taken.id == "ftjob-0"
        taken.occupies_machine = False
        session.flush()
        freed = jobs.claim_next("d", now=20.0, lease_s=10.0, max_running=2)
        assert freed is not None
        assert freed.id == "ftjob-1"
        later = jobs.claim_next("d", now=20.0, lease_s=10.0, max_running=2)
        assert later is not None
        assert later.id == "ftjob-2"


def test_many_claimants_never_share_a_job_or_exceed_the_limit(database: Database) -> None:
    with database.session() as session:
        for number in range(12):
            JobRepo(session).add(job_row(f"ftjob-{number}", status="queued"))
    barrier = threading.Barrier(4)
    claimed: list[str] = []

    def claim(owner: str) -> None:
        barrier.wait()
        for _ in range(4):
            with database.session() as session:
                job = JobRepo(session).claim_next(owner, now=1.0, lease_s=10.0, max_running=6)
            if job is not None:
                claimed.append(job.id)

    threads = [threading.Thread(target=claim, args=(f"owner-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed, key=lambda name: int(name[6:])) == [f"ftjob-{number}" for number in range(6)]

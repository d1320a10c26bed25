"""Servers that are killed with -9, and servers that compete: nothing is lost, nothing happens twice."""

import os
import random
import signal
import time
from contextlib import suppress

import pytest
from job_world import World, wait_for

from tunesmith.store.repos.jobs import JobRepo


def status(world: World, job_id: str) -> str:
    return world.service.get(job_id).status


def num_steps(world: World, job_id: str) -> int:
    return sum(event.type == "metrics" for event in world.events(job_id))


def test_a_run_outlives_its_server_and_the_next_server_takes_it_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.04")
    job = world.create_long()
    with world.server() as server:
        wait_for(lambda: num_steps(world, job.id) >= 3)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    known = num_steps(world, job.id)
    wait_for(lambda: len(world.events_in_file(job.id)) > known + 8)
    assert num_steps(world, job.id) == known
    with world.server():
        wait_for(lambda: status(world, job.id) == "succeeded")
    assert len(world.trainer_pids(job.id)) == 1
    assert world.service.get(job.id).num_restarts == 0
    assert world.messages(job.id).count("Fine-tuning job started") == 1
    assert num_steps(world, job.id) == 100
    world.check_no_event_lost_or_twice(job.id)


def test_servers_and_trainers_killed_at_random_lose_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.04")
    dice = random.Random(7)
    job = world.create_long()
    for kills_trainer in (False, True, False):
        with world.server() as server:
            wait_for(lambda: world.trainer_pids(job.id))
            time.sleep(dice.uniform(0.0, 0.4))
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
        if kills_trainer:
            with suppress(ProcessLookupError):  # a slow machine may have let it end
                os.kill(world.trainer_pids(job.id)[-1], signal.SIGKILL)
    with world.server():
        wait_for(lambda: status(world, job.id) == "succeeded")
    assert num_steps(world, job.id) == 100
    assert world.service.get(job.id).trained_tokens == 1000
    assert world.messages(job.id)[-1] == "The job has successfully completed"
    world.check_no_event_lost_or_twice(job.id)


def test_servers_that_compete_never_both_own_a_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.01")
    jobs = [world.create() for _ in range(6)]
    most = 0

    def all_done() -> bool:
        nonlocal most
        with world.database.reading() as session:
            most = max(most, JobRepo(session).count_running())
        return all(status(world, job.id) == "succeeded" for job in jobs)

    with world.server(max_running=2), world.server(max_running=2):
        wait_for(all_done)
    assert most == 2
    for job in jobs:
        assert len(world.trainer_pids(job.id)) == 1
        assert world.messages(job.id).count("Fine-tuning job started") == 1
        assert world.messages(job.id).count("Files validated, moving job to queued state") == 1
        world.check_no_event_lost_or_twice(job.id)


def test_jobs_start_in_the_order_of_their_age(sqlite_world: World) -> None:
    jobs = [sqlite_world.create() for _ in range(3)]
    sqlite_world.look_until(lambda: status(sqlite_world, jobs[-1].id) == "succeeded")
    ends = [sqlite_world.events(job.id) for job in jobs]
    starts = [next(e.number for e in events if e.message == "Fine-tuning job started") for events in ends]
    finishes = [events[-1].number for events in ends]
    assert starts == sorted(starts)
    assert all(finish < start for finish, start in zip(finishes, starts[1:], strict=False))


def test_a_job_left_in_validation_is_validated_anew(world: World) -> None:
    job = world.create()
    with world.database.session() as session:
        dead = JobRepo(session).claim_next("dead-server", now=time.time() - 60, lease_s=30.0, max_running=1)
    assert dead is not None
    world.look_until_status(job.id, "succeeded")
    assert world.messages(job.id).count("Files validated, moving job to queued state") == 1


def test_a_job_left_between_claim_and_start_is_started(world: World) -> None:
    job = world.create()
    world.look_until_status(job.id, "queued")
    with world.database.session() as session:
        row = JobRepo(session).get_for_update(job.id)
        assert row is not None
        row.occupies_machine, row.lease_owner, row.lease_expires_at = True, "dead-server", time.time() - 1
    done = world.look_until_status(job.id, "succeeded")
    assert done.num_restarts == 0


def test_a_cancelled_run_whose_server_died_still_frees_its_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.1")
    monkeypatch.setenv("PROTOCOL_DEAF", "1")
    job = world.create_long()
    with world.server() as server:
        wait_for(lambda: num_steps(world, job.id) >= 1)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    world.service.cancel(job.id)
    assert world.service.get(job.id).occupies_machine
    with world.server():
        wait_for(lambda: not world.service.get(job.id).occupies_machine)
    assert status(world, job.id) == "cancelled"
    world.check_no_event_lost_or_twice(job.id)

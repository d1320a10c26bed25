"""The real trainer under the real supervisor, on a tiny random model; elsewhere a protocol process stands for it."""

import os
import re
import signal
from pathlib import Path

import pytest
from job_world import World, wait_for
from real_trainer import make_real

from tunesmith.jobs.launchers.local import TRAINER_COMMAND


@pytest.fixture
def real_world(sqlite_world: World) -> World:
    return make_real(sqlite_world)


def test_a_real_run_survives_the_death_of_server_and_trainer(real_world: World) -> None:
    job = real_world.create(validation_file=real_world.upload(12), n_epochs=30, suffix="real")
    events_file = real_world.run_dir(job.id) / "events.jsonl"
    with real_world.server() as server:
        wait_for(lambda: any(event.type == "metrics" for event in real_world.events(job.id)))
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    _kill_trainer(real_world.run_dir(job.id))
    with real_world.server():
        wait_for(lambda: real_world.service.get(job.id).status == "succeeded")
    done = real_world.service.get(job.id)
    steps = [event.data["step"] for event in real_world.events(job.id) if event.type == "metrics"]
    assert steps == list(range(1, 151))
    assert done.trained_tokens == _tokens_of_rows(real_world, job.id) * 30
    checkpoints, _ = real_world.service.checkpoints(job.id)
    assert checkpoints[0].step == 150
    assert all((real_world.settings.home / row.dir / "adapter_model.safetensors").exists() for row in checkpoints)
    assert sum(row.is_best for row in checkpoints) == 1
    results = b"".join(real_world.blobs.open(done.result_files[0])).decode().splitlines()
    assert results[0].startswith("step,train_loss,train_mean_token_accuracy,valid_loss,")
    assert len(results) == 151
    assert re.search(r"full validation loss=\d", real_world.messages(job.id)[-4] + real_world.messages(job.id)[-5])
    assert events_file.exists()
    real_world.check_no_event_lost_or_twice(job.id)


def test_a_real_run_goes_on_from_a_tuned_model(real_world: World) -> None:
    first = real_world.look_until_status(real_world.create(n_epochs=4).id, "succeeded")
    second = real_world.create(model=first.fine_tuned_model, training_file=first.training_file, n_epochs=1)
    real_world.look_until_status(second.id, "succeeded")
    assert _losses(real_world, second.id)[0] < _losses(real_world, first.id)[0]


def test_a_real_run_is_cancelled_paused_and_resumed(real_world: World) -> None:
    job = real_world.create(n_epochs=50, extra={"validation_split": 0.2})
    real_world.look_until_step(job.id, 1)
    real_world.service.pause(job.id)
    paused = real_world.look_until_status(job.id, "paused")
    assert not paused.occupies_machine
    real_world.service.resume(job.id)
    known = len(real_world.events(job.id))
    real_world.look_until(lambda: len(real_world.events(job.id)) > known + 5)
    assert real_world.service.cancel(job.id).status == "cancelled"
    real_world.look_until(lambda: not real_world.service.get(job.id).occupies_machine)
    assert real_world.service.get(job.id).num_restarts == 0
    real_world.check_no_event_lost_or_twice(job.id)


def _losses(world: World, job_id: str) -> list[float]:
    return [event.data["train_loss"] for event in world.events(job_id) if event.type == "metrics"]


def _kill_trainer(run_dir: Path) -> None:
    """Kill the trainer with -9 while it trains; one that has ended already fails the test."""
    import psutil

    (trainer,) = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == [*TRAINER_COMMAND, str(run_dir)]]
    trainer.kill()
    trainer.wait()


def _tokens_of_rows(world: World, job_id: str) -> int:
    event = next(event for event in world.events(job_id) if event.message.startswith("Files validated"))
    return int(event.data["training_file"]["num_tokens"])

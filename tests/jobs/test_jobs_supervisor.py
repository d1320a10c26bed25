"""The life of a job, driven by hand with a real trainer process that keeps the file protocol."""

import os
import re
import signal

import pytest
from job_world import World, rows, wait_for
from sqlalchemy import text

from tunesmith.core.errors import Conflict
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.repos.jobs import JobRepo
from tunesmith.store.repos.models import ModelRepo


def test_a_job_succeeds_with_the_events_in_their_order(world: World) -> None:
    job = world.create(training_file=world.upload(20), validation_file=world.upload(12), suffix="desk")
    job = world.look_until_status(job.id, "succeeded")
    messages = world.messages(job.id)
    assert messages[:3] == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file}",
        f"Validating validation file: {job.validation_file}",
    ]
    assert messages[3] == "Files validated, moving job to queued state"
    assert messages[4].startswith("Plan: 25 steps; 5 epochs (20 rows are few")
    assert messages[5].startswith("Quote: 820 tokens x 5 epochs = 4,100 trained tokens, 0.0041 USD; ")
    assert messages[6:8] == ["Fine-tuning job started", "Loading the model"]
    steps = [message for message in messages if message.startswith("Step ")]
    assert len(steps) == 25
    assert steps[0] == "Step 1/25: training loss=1.00"
    assert steps[-1] == "Step 25/25: training loss=0.04, validation loss=0.27, full validation loss=0.40"
    assert messages.index("Checkpoint created at step 5") == messages.index(steps[4]) + 1
    assert messages[-2:] == [
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]
    world.check_no_event_lost_or_twice(job.id)


def test_what_a_succeeded_job_leaves(world: World) -> None:
    job = world.create(suffix="desk")
    job = world.look_until_status(job.id, "succeeded")
    assert re.fullmatch(r"ft:tiny:tunesmith:desk:[A-Za-z0-9]{8}", job.fine_tuned_model or "")
    assert job.hyperparameters == {"n_epochs": 5, "batch_size": 4, "learning_rate_multiplier": 1.0}
    assert job.method["supervised"]["hyperparameters"] == job.hyperparameters
    assert job.trained_tokens == 250
    assert job.finished_at is not None
    assert job.estimated_finish is None
    assert job.error is None
    assert not job.occupies_machine
    checkpoints, has_more = world.service.checkpoints(job.id)
    assert [row.step for row in checkpoints] == [25, 20, 15]
    assert not has_more
    assert checkpoints[0].metrics == {"step": 25, "train_loss": 0.04, "full_valid_loss": 0.4}
    with world.database.reading() as session:
        models = {row.id: row for row in ModelRepo(session).list_of_job(job.id)}
        assert {row.checkpoint_step for row in models.values()} == {25, 20, 15}
        tuned = models[job.fine_tuned_model or ""]
        assert (tuned.kind, tuned.dir, tuned.sha256) == ("tuned", checkpoints[0].dir, checkpoints[0].sha256)
        assert re.fullmatch(r"ft:tiny:tunesmith:desk:[A-Za-z0-9]{8}:ckpt-step-25", checkpoints[0].model_name)
        assert (world.settings.home / tuned.dir / "adapter_model.safetensors").read_text() == "weights at 25"
        results = FileRepo(session).get(job.result_files[0])
    assert results is not None
    assert (results.filename, results.purpose) == ("step_metrics.csv", "fine-tune-results")
    assert b"".join(world.blobs.open(results.id)) == b"step,train_loss\n1,0.5\n"


def test_metrics_events_carry_the_fields_of_the_api(sqlite_world: World) -> None:
    job = sqlite_world.create(validation_file=sqlite_world.upload(12))
    sqlite_world.look_until_status(job.id, "succeeded")
    metrics = [event for event in sqlite_world.events(job.id) if event.type == "metrics"]
    assert len(metrics) == 25
    assert metrics[0].data["step"] == 1
    assert metrics[0].data["total_steps"] == 25
    assert metrics[0].data["train_loss"] == 1.0
    assert "valid_loss" not in metrics[0].data
    assert metrics[-1].data["full_valid_loss"] == 0.4


def test_the_estimate_is_there_while_the_job_runs(sqlite_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.05")
    job = sqlite_world.create_long()
    sqlite_world.look_until_step(job.id, 2)
    running = sqlite_world.service.get(job.id)
    event = next(event for event in sqlite_world.events(job.id) if event.type == "metrics")
    assert running.status == "running"
    assert running.estimated_finish is not None
    assert abs(running.estimated_finish - (event.created_at + 100)) <= 60


@pytest.mark.parametrize(
    ("text", "code", "needle"),
    [
        (rows(7), "invalid_n_examples", "Training file has 7 example(s), but must have at least 10 examples"),
        (rows(12) + b'{"messages": []}\n', "invalid_training_file", "Line 13"),
        (rows(12) + b"not json\n", "invalid_training_file", "The job failed due to an invalid training file."),
    ],
)
def test_bad_data_fails_the_job_with_its_line(sqlite_world: World, text: bytes, code: str, needle: str) -> None:
    job = sqlite_world.create(training_file=sqlite_world.upload(text=text))
    job = sqlite_world.look_until_status(job.id, "failed")
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == (code, "training_file")
    assert needle in job.error["message"]
    assert job.finished_at is not None
    assert sqlite_world.events(job.id)[-1].level == "error"


def test_a_bad_validation_file_is_named(sqlite_world: World) -> None:
    bad = sqlite_world.upload(text=rows(3) + b"[]\n")
    job = sqlite_world.look_until_status(sqlite_world.create(validation_file=bad).id, "failed")
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("invalid_validation_file", "validation_file")


def test_a_file_deleted_before_validation_fails_the_job(sqlite_world: World) -> None:
    job = sqlite_world.create()
    sqlite_world.blobs.delete(job.training_file)
    job = sqlite_world.look_until_status(job.id, "failed")
    assert job.error is not None
    assert "was deleted" in job.error["message"]


def test_a_file_deleted_during_the_run_does_no_harm(sqlite_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.01")
    job = sqlite_world.create()
    sqlite_world.look_until_step(job.id, 1)
    sqlite_world.blobs.delete(job.training_file)
    sqlite_world.look_until_status(job.id, "succeeded")
    assert (sqlite_world.run_dir(job.id) / "train.jsonl").read_bytes() == rows(20)


def test_a_validation_split_is_reported(sqlite_world: World) -> None:
    job = sqlite_world.create(extra={"validation_split": 0.2})
    sqlite_world.look_until_status(job.id, "queued")
    assert "4 of 20 training rows (20%) are held out to validate" in sqlite_world.messages(job.id)


def test_a_queued_job_is_cancelled_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.02")
    first = world.create_long()
    second = world.create()
    world.look_until_status(first.id, "running")
    world.look_until_status(second.id, "queued")
    assert world.service.cancel(second.id).status == "cancelled"
    world.look_until_status(first.id, "succeeded")
    assert world.trainer_pids(second.id) == []


def test_a_running_job_is_cancelled_at_once_and_frees_the_machine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.05")
    job = world.create_long()
    world.look_until_step(job.id, 2)
    cancelled = world.service.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.occupies_machine
    world.look_until(lambda: not world.service.get(job.id).occupies_machine)
    gone = world.service.get(job.id)
    assert gone.status == "cancelled"
    assert gone.trained_tokens is not None
    assert gone.trained_tokens < 1000
    assert not _exists(world.trainer_pids(job.id)[0])
    world.check_no_event_lost_or_twice(job.id)
    with pytest.raises(Conflict, match="cancelled"):
        world.service.cancel(job.id)


def test_a_trainer_that_ignores_a_cancel_keeps_its_place_until_it_is_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.1")
    monkeypatch.setenv("PROTOCOL_DEAF", "1")
    world.supervisor = world.new_supervisor(cancel_grace_s=1.0)
    job = world.create_long()
    waiting = world.create()
    world.look_until_step(job.id, 1)
    world.look_until_status(waiting.id, "queued")
    world.service.cancel(job.id)
    (trainer,) = world.trainer_pids(job.id)
    world.supervisor.look()
    assert _exists(trainer)
    assert world.service.get(waiting.id).status == "queued"
    world.look_until_status(waiting.id, "running")
    assert not _exists(trainer)
    assert world.service.get(job.id).status == "cancelled"


def test_pause_and_resume(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.02")
    job = world.create_long()
    with pytest.raises(Conflict):
        world.service.pause(job.id)
    world.look_until_step(job.id, 3)
    with pytest.raises(Conflict):
        world.service.resume(job.id)
    assert world.service.pause(job.id).status == "running"
    paused = world.look_until_status(job.id, "paused")
    assert not paused.occupies_machine
    assert world.service.resume(job.id).status == "queued"
    done = world.look_until_status(job.id, "succeeded")
    assert done.num_restarts == 0
    assert done.trained_tokens == 1000
    messages = world.messages(job.id)
    assert messages.count("Fine-tuning job started") == 1
    assert messages.count("Fine-tuning job resumed") == 1
    assert len([message for message in messages if message.startswith("Step ")]) == 100
    world.check_no_event_lost_or_twice(job.id)


def test_a_paused_job_leaves_its_place_to_others_and_can_be_cancelled(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.02")
    job = sqlite_world.create_long()
    sqlite_world.look_until_step(job.id, 1)
    other = sqlite_world.create()
    sqlite_world.service.pause(job.id)
    sqlite_world.look_until_status(other.id, "succeeded")
    assert sqlite_world.service.get(job.id).status == "paused"
    assert sqlite_world.service.cancel(job.id).status == "cancelled"


def test_a_dead_trainer_goes_on_from_its_last_checkpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.02")
    job = world.create_long()
    world.look_until_step(job.id, 23)
    os.kill(world.trainer_pids(job.id)[0], signal.SIGKILL)
    done = world.look_until_status(job.id, "succeeded")
    assert done.num_restarts == 1
    assert len(world.trainer_pids(job.id)) == 2
    messages = world.messages(job.id)
    (warning,) = [message for message in messages if "stopped unexpectedly" in message]
    assert "killed by signal 9" in warning
    assert "restart 1 of 3" in warning
    steps = [int(re.match(r"Step (\d+)/", m).group(1)) for m in messages if m.startswith("Step ")]  # type: ignore[union-attr]
    assert steps == list(range(1, 101))
    world.check_no_event_lost_or_twice(job.id)


def test_a_trainer_that_dies_each_time_fails_the_job_with_its_last_words(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOCOL_CRASH", "1")
    job = sqlite_world.create()
    job = sqlite_world.look_until_status(job.id, "failed")
    assert job.error is not None
    assert job.error["code"] == "trainer_crashed"
    assert "something terrible happened" in job.error["message"]
    assert len(sqlite_world.trainer_pids(job.id)) == 1 + sqlite_world.settings.max_trainer_restarts
    assert not job.occupies_machine


def test_a_failure_that_the_trainer_explains_is_not_tried_again(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOCOL_FAIL", "1")
    job = sqlite_world.look_until_status(sqlite_world.create().id, "failed")
    assert job.error == {
        "code": "out_of_memory",
        "message": "The row of line 3 does not fit.",
        "param": "training_file",
    }
    assert len(sqlite_world.trainer_pids(job.id)) == 1


def test_a_trainer_that_writes_nonsense_is_ended(sqlite_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_GARBAGE", "1")
    job = sqlite_world.look_until_status(sqlite_world.create().id, "failed")
    assert job.error is not None
    assert job.error["code"] == "trainer_error"
    assert not sqlite_world.supervisor._launcher.is_alive(sqlite_world.run_dir(job.id))


def test_a_job_goes_on_from_a_tuned_model(sqlite_world: World) -> None:
    first = sqlite_world.look_until_status(sqlite_world.create().id, "succeeded")
    second = sqlite_world.create(model=first.fine_tuned_model, suffix="more")
    assert (second.model, second.base_model) == (first.fine_tuned_model, "tiny")
    second = sqlite_world.look_until_status(second.id, "succeeded")
    spec = (sqlite_world.run_dir(second.id) / "spec.json").read_text()
    start = sqlite_world.run_dir(second.id) / "start"
    assert f'"start_adapter_dir": "{start}"' in spec
    assert (start / "adapter_model.safetensors").read_text() == "weights at 25"
    assert re.fullmatch(r"ft:tiny:tunesmith:more:[A-Za-z0-9]{8}", second.fine_tuned_model or "")


def test_a_start_that_was_deleted_before_validation_fails_the_job(sqlite_world: World) -> None:
    first = sqlite_world.look_until_status(sqlite_world.create().id, "succeeded")
    second = sqlite_world.create(model=first.fine_tuned_model)
    with sqlite_world.database.session() as session:
        ModelRepo(session).delete(first.fine_tuned_model or "")
    second = sqlite_world.look_until_status(second.id, "failed")
    assert second.error is not None
    assert (second.error["code"], second.error["param"]) == ("model_not_available", "model")
    assert sqlite_world.trainer_pids(second.id) == []


def test_files_that_cannot_be_read_for_another_reason_fail_the_job_after_some_tries(sqlite_world: World) -> None:
    job = sqlite_world.create()
    path = sqlite_world.settings.models_dir / "base" / "tiny" / "tokenizer.json"
    path.unlink()
    job = sqlite_world.look_until_status(job.id, "failed")
    assert job.error is not None
    assert job.error["code"] == "preparation_failed"


def test_the_supervisor_outlives_a_database_that_is_away(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.supervisor.start()
    with world.database.session() as session:
        session.execute(text("ALTER TABLE jobs RENAME TO jobs_away"))
    wait_for(lambda: "Could not claim jobs; trying again." in caplog.text)
    with world.database.session() as session:
        session.execute(text("ALTER TABLE jobs_away RENAME TO jobs"))
    job = world.create()
    wait_for(lambda: world.service.get(job.id).status == "succeeded")
    world.supervisor.stop()


def test_stopping_gives_up_the_leases_and_leaves_the_trainer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.05")
    job = world.create()
    world.look_until_step(job.id, 2)
    world.supervisor.stop()
    assert world.service.get(job.id).lease_owner is None
    (trainer,) = world.trainer_pids(job.id)
    assert _exists(trainer)
    successor = world.new_supervisor()
    monkeypatch.setenv("PROTOCOL_STEP_S", "0")
    world.look_until(lambda: world.service.get(job.id).status == "succeeded", successor)
    assert world.trainer_pids(job.id) == [trainer]
    world.check_no_event_lost_or_twice(job.id)


def test_a_supervisor_that_lost_its_lease_writes_nothing_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_STEP_S", "0.03")
    job = world.create_long()
    world.look_until_step(job.id, 2)
    with world.database.session() as session:
        row = JobRepo(session).get_for_update(job.id)
        assert row is not None
        row.lease_owner, row.lease_expires_at = "somebody-else", 4e9
    before = len(world.events(job.id))
    for _ in range(20):
        world.supervisor.look()
    assert len(world.events(job.id)) == before
    assert world.service.get(job.id).lease_owner == "somebody-else"


def test_no_zombies_stay(sqlite_world: World) -> None:
    job = sqlite_world.look_until_status(sqlite_world.create().id, "succeeded")
    assert not _exists(sqlite_world.trainer_pids(job.id)[0])


def _exists(process_id: int) -> bool:
    """Also true of a zombie."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True

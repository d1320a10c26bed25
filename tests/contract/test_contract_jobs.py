"""Fine-tuning jobs through the official SDK, from creation to the files they leave."""

import csv
import io

import openai
import pytest
from job_steps import MODEL, jsonl, wait_until
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob


def upload(client: OpenAI, data: bytes) -> str:
    return client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id


def test_a_job_that_succeeded_has_every_field(tuned: FineTuningJob, client: OpenAI) -> None:
    assert tuned.fine_tuned_model is not None
    assert tuned.fine_tuned_model.startswith(f"ft:{MODEL}:acme:codes:")
    assert (tuned.model, tuned.organization_id, tuned.seed, tuned.error) == (MODEL, "acme", 3, None)
    assert tuned.metadata == {"made": "by-tests"}
    assert tuned.finished_at is not None
    assert tuned.finished_at >= tuned.created_at
    assert tuned.trained_tokens
    numbers = tuned.hyperparameters
    assert (numbers.n_epochs, numbers.batch_size) == (2, 10)
    assert isinstance(numbers.learning_rate_multiplier, float | int)
    assert tuned.method is not None
    assert tuned.method.supervised is not None
    assert tuned.method.supervised.hyperparameters is not None
    assert tuned.method.supervised.hyperparameters.to_dict() == numbers.to_dict()


def test_its_events_tell_the_story_newest_first(tuned: FineTuningJob, client: OpenAI) -> None:
    events = list(client.fine_tuning.jobs.list_events(tuned.id, limit=3))
    assert len({event.id for event in events}) == len(events)
    messages = [event.message for event in reversed(events)]
    assert messages[0] == f"Created fine-tuning job: {tuned.id}"
    assert messages[1] == f"Validating training file: {tuned.training_file}"
    assert f"New fine-tuned model created: {tuned.fine_tuned_model}" in messages
    assert messages[-1] == "The job has successfully completed"
    metrics = [event.data for event in reversed(events) if event.type == "metrics"]
    assert [(data["step"], data["total_steps"]) for data in metrics] == [(1, 2), (2, 2)]  # type: ignore[index]


def test_its_checkpoints(tuned: FineTuningJob, client: OpenAI) -> None:
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(tuned.id, limit=1))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [2, 1]
    for checkpoint in checkpoints:
        assert checkpoint.id.startswith("ftckpt_")
        assert checkpoint.fine_tuned_model_checkpoint.endswith(f":ckpt-step-{checkpoint.step_number}")
        assert checkpoint.metrics.train_loss is not None
        assert checkpoint.metrics.full_valid_loss is not None


def test_its_results_file_is_plain_csv(tuned: FineTuningJob, client: OpenAI) -> None:
    (file_id,) = tuned.result_files
    file = client.files.retrieve(file_id)
    assert (file.purpose, file.filename) == ("fine-tune-results", "step_metrics.csv")
    lines = list(csv.DictReader(io.StringIO(client.files.content(file_id).text)))
    assert [line["step"] for line in lines] == ["1", "2"]
    assert all(float(line["train_loss"]) > 0 for line in lines)
    assert float(lines[-1]["full_valid_loss"]) > 0


def test_jobs_are_found_by_their_metadata(tuned: FineTuningJob, client: OpenAI) -> None:
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"made": "by-tests"})] == [tuned.id]
    assert not list(client.fine_tuning.jobs.list(metadata={"made": "by-nobody"}))
    assert tuned.id not in [job.id for job in client.fine_tuning.jobs.list(extra_query={"metadata": "null"})]


def test_too_few_examples_fail_the_job(client: OpenAI) -> None:
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=upload(client, jsonl(7)))
    job = wait_until(client, job.id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_n_examples", "training_file")
    assert "7 example" in job.error.message
    assert job.finished_at is not None
    assert job.fine_tuned_model is None


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
def test_a_broken_line_fails_the_job_and_is_named(client: OpenAI, field: str) -> None:
    good = upload(client, jsonl(12))
    broken = upload(client, jsonl(10) + b'{"messages": [{"role": "user", "content": "a"}]\n' + jsonl(2))
    files = {"training_file": good, "validation_file": None, field: broken}
    job = wait_until(client, client.fine_tuning.jobs.create(model=MODEL, **files).id)  # type: ignore[arg-type]
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == (f"invalid_{field}", field)
    assert "11" in job.error.message


def test_a_cancelled_job_stays_cancelled(client: OpenAI) -> None:
    file_id = upload(client, jsonl(40))
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=file_id, hyperparameters={"n_epochs": 50})
    job = wait_until(client, job.id, "running")
    assert job.status == "running"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.ConflictError) as refused:
        client.fine_tuning.jobs.cancel(job.id)
    assert refused.value.code == "invalid_job_state"
    assert refused.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"model": "gpt-none"}, "model", "model_not_available"),
        ({"training_file": "file-none"}, "training_file", "invalid_file"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "integer_below_min_value"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type", "unsupported_method"),
    ],
)
def test_what_is_refused_at_creation(client: OpenAI, changes: dict[str, object], param: str, code: str) -> None:
    request = {"model": MODEL, "training_file": upload(client, jsonl(12)), **changes}
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**request)  # type: ignore[arg-type]
    assert (refused.value.param, refused.value.code) == (param, code)

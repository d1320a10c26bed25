"""What is refused at creation, and what the API can ask."""

from typing import Any

import pytest
from job_world import World

from tunesmith.core.errors import Conflict, InvalidRequest, NotFound
from tunesmith.store.repos.models import ModelRepo


def test_a_new_job_echoes_what_was_asked(sqlite_world: World) -> None:
    job = sqlite_world.create(model="tiny-alias", seed=5, suffix="a-b", metadata={"team": "x"}, n_epochs=2)
    assert job.id.startswith("ftjob-")
    assert (job.status, job.model, job.base_model, job.seed) == ("validating_files", "tiny", "tiny", 5)
    asked = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert job.hyperparameters == asked
    assert job.method == {"type": "supervised", "supervised": {"hyperparameters": asked}}
    assert job.user_metadata == {"team": "x"}
    assert job.result_files == []
    assert sqlite_world.service.get(job.id).created_at == job.created_at


def test_a_seed_is_made_where_none_is_given(sqlite_world: World) -> None:
    """From the model and the files' bytes: a quote foretells its job."""
    first, same, other = sqlite_world.upload(20), sqlite_world.upload(20), sqlite_world.upload(21)
    assert sqlite_world.create(training_file=first).seed == sqlite_world.create(training_file=same).seed
    asked = [{"training_file": first}, {"training_file": other}, {"training_file": first, "validation_file": other}]
    seeds = {sqlite_world.create(**files).seed for files in asked}
    assert len(seeds) == 3
    assert all(0 <= seed <= 2_147_483_647 for seed in seeds)


@pytest.mark.parametrize(
    ("request_fields", "param"),
    [
        ({"n_epochs": 0}, "hyperparameters.n_epochs"),
        ({"n_epochs": 51}, "hyperparameters.n_epochs"),
        ({"n_epochs": True}, "hyperparameters.n_epochs"),
        ({"batch_size": 257}, "hyperparameters.batch_size"),
        ({"batch_size": 1.5}, "hyperparameters.batch_size"),
        ({"learning_rate_multiplier": 0}, "hyperparameters.learning_rate_multiplier"),
        ({"learning_rate_multiplier": float("nan")}, "hyperparameters.learning_rate_multiplier"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"suffix": ""}, "suffix"),
        ({"suffix": "a:b"}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"method_type": "dpo"}, "method.type"),
        ({"extra": {"validation_split": 1.5}}, "tunesmith.validation_split"),
        ({"extra": {"training": "half"}}, "tunesmith.training"),
        ({"extra": {"lora_r": "16"}}, "tunesmith.lora_r"),
        ({"model": "gpt-9"}, "model"),
        ({"training_file": "file-none"}, "training_file"),
        ({"validation_file": "file-none"}, "validation_file"),
    ],
)
def test_what_cannot_be_is_refused_at_once(sqlite_world: World, request_fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(**request_fields)
    assert caught.value.param == param
    assert sqlite_world.service.list() == ([], False)


def test_an_unknown_key_of_the_extra_body_names_the_known_ones(sqlite_world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(extra={"lorra_r": 8})
    assert caught.value.param == "tunesmith.lorra_r"
    for key in ("validation_split", "training", "lora_r", "lora_alpha", "learning_rate", "dtype", "max_row_tokens"):
        assert key in str(caught.value)


def test_codes_that_clients_look_at(sqlite_world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(model="gpt-9")
    assert caught.value.code == "model_not_available"
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(model="smollm2-135m-instruct")
    assert caught.value.code == "model_not_available"
    assert "not installed" in caught.value.message
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(training_file=sqlite_world.upload(purpose="batch"))
    assert (caught.value.code, caught.value.param) == ("invalid_file", "training_file")


def test_a_split_and_a_file_exclude_each_other(sqlite_world: World) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(validation_file=sqlite_world.upload(), extra={"validation_split": 0.1})
    assert caught.value.param == "tunesmith.validation_split"


def test_integrations_are_kept_with_a_warning(sqlite_world: World) -> None:
    wish = [{"type": "wandb", "wandb": {"project": "p"}}]
    job = sqlite_world.create(integrations=wish)
    assert job.integrations == wish
    assert sqlite_world.events(job.id)[-1].level == "warn"


@pytest.mark.parametrize("call", ["get", "cancel", "pause", "resume", "events", "checkpoints"])
def test_an_unknown_job_is_not_found(sqlite_world: World, call: str) -> None:
    with pytest.raises(NotFound) as caught:
        getattr(sqlite_world.service, call)("ftjob-none")
    assert caught.value.code == "fine_tune_not_found"


def test_lists_are_newest_first_and_filtered(world: World) -> None:
    file_id = world.upload()
    jobs = [world.create(training_file=file_id, metadata={"n": str(number % 2)}) for number in range(4)]
    first, has_more = world.service.list(limit=3)
    assert ([job.id for job in first], has_more) == ([job.id for job in jobs[:0:-1]], True)
    odd, has_more = world.service.list(metadata={"n": "1"}, limit=1)
    assert ([job.id for job in odd], has_more) == ([jobs[3].id], True)
    assert world.service.list(metadata={}) == ([], False)


def test_events_are_paged_newest_first(world: World) -> None:
    job = world.create()
    newest, has_more = world.service.events(job.id, limit=1)
    assert (newest[0].message, has_more) == (f"Validating training file: {job.training_file}", True)
    older, has_more = world.service.events(job.id, after=newest[0].id)
    assert ([event.message for event in older], has_more) == ([f"Created fine-tuning job: {job.id}"], False)
    assert newest[0].id.startswith("ftevent-")


def test_a_job_is_cancelled_while_its_files_are_checked(world: World) -> None:
    job = world.service.cancel(world.create().id)
    assert (job.status, job.occupies_machine) == ("cancelled", False)
    assert job.finished_at is not None
    with pytest.raises(Conflict) as caught:
        world.service.cancel(job.id)
    assert caught.value.message == "The job is cancelled already."
    for _ in range(3):
        world.supervisor.look()
    assert world.service.get(job.id).status == "cancelled"


def test_training_on_goes_on_in_kind(sqlite_world: World) -> None:
    first = sqlite_world.look_until_status(sqlite_world.create().id, "succeeded")
    name = first.fine_tuned_model
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(model=name, extra={"training": "full"})
    assert caught.value.param == "tunesmith.training"
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(model=name, extra={"lora_r": 8})
    assert caught.value.param == "tunesmith.lora_r"
    checkpoint = sqlite_world.service.checkpoints(first.id)[0][-1]
    assert sqlite_world.create(model=checkpoint.model_name).start_checkpoint_id == checkpoint.model_name
    with sqlite_world.database.session() as session:
        ModelRepo(session).delete(name or "")
    with pytest.raises(InvalidRequest) as caught:
        sqlite_world.create(model=name)
    assert caught.value.code == "model_not_available"


def test_weights_that_are_gone_cannot_be_trained_on(sqlite_world: World) -> None:
    first = sqlite_world.look_until_status(sqlite_world.create().id, "succeeded")
    for path in sqlite_world.run_dir(first.id).glob("checkpoints/*/adapter_model.safetensors"):
        path.unlink()
    with pytest.raises(InvalidRequest, match="no longer there"):
        sqlite_world.create(model=first.fine_tuned_model)

"""/v1/fine_tuning/jobs: what a request may say, and what comes back. The supervisor's own work is tested with it."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tunesmith.catalog.models import embedded_model

MODEL = embedded_model().id
JOBS = "/v1/fine_tuning/jobs"
Upload = Callable[..., str]


@pytest.fixture(scope="module")
def shared_file(shared_api: TestClient) -> str:
    form = {"data": {"purpose": "fine-tune"}, "files": {"file": ("a.jsonl", b"{}")}}
    return str(shared_api.post("/v1/files", **form).json()["id"])


def create(api: TestClient, file_id: str, **body: Any) -> dict[str, Any]:
    answer = api.post(JOBS, json={"model": MODEL, "training_file": file_id, **body})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def test_every_key_is_there_from_the_start(api: TestClient, upload: Upload) -> None:
    job = create(api, upload())
    assert set(job) == {
        "id", "object", "created_at", "error", "estimated_finish", "fine_tuned_model", "finished_at",
        "hyperparameters", "integrations", "metadata", "method", "model", "organization_id", "result_files",
        "seed", "status", "trained_tokens", "training_file", "user_provided_suffix", "validation_file",
    }  # fmt: skip
    auto = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert job["hyperparameters"] == auto
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": auto}}
    assert (job["error"], job["result_files"], job["organization_id"]) == (None, [], "acme")
    assert job["status"] == "validating_files"
    assert 0 <= job["seed"] <= 2_147_483_647


@pytest.mark.parametrize(
    "body",
    [
        {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}},
        {
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}},
            }
        },
        {
            "method": {"type": "supervised"},
            "hyperparameters": {"n_epochs": "2", "batch_size": 4, "learning_rate_multiplier": 0.5},
        },
    ],
)
def test_hyperparameters_in_the_new_and_the_old_place(api: TestClient, upload: Upload, body: dict[str, Any]) -> None:
    job = create(api, upload(), **body)
    expected = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    assert job["hyperparameters"] == expected
    assert job["method"]["supervised"]["hyperparameters"] == expected


def test_nulls_are_as_good_as_nothing(api: TestClient, upload: Upload) -> None:
    nulls = ("suffix", "seed", "validation_file", "metadata", "integrations", "method", "hyperparameters", "tunesmith")
    job = create(api, upload(), **dict.fromkeys(nulls))
    assert job["hyperparameters"]["n_epochs"] == "auto"
    job = create(api, upload(), hyperparameters={"n_epochs": None, "batch_size": 3})
    assert job["hyperparameters"] == {"n_epochs": "auto", "batch_size": 3, "learning_rate_multiplier": "auto"}


def test_what_was_asked_is_echoed(api: TestClient, upload: Upload) -> None:
    training, validation = upload(), upload()
    job = create(
        api, training, validation_file=validation, suffix="claims", seed=7, metadata={"team": "desk"}, integrations=[]
    )
    assert (job["training_file"], job["validation_file"]) == (training, validation)
    assert (job["seed"], job["user_provided_suffix"], job["metadata"]) == (7, "claims", {"team": "desk"})
    assert api.get(f"{JOBS}/{job['id']}").json()["metadata"] == {"team": "desk"}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"model": "gpt-none"}, "model", "model_not_available"),
        ({"training_file": "file-none"}, "training_file", "invalid_file"),
        ({"validation_file": "file-none"}, "validation_file", "invalid_file"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "integer_below_min_value"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "integer_above_max_value"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size", "integer_above_max_value"),
        ({"hyperparameters": {"batch_size": "many"}}, "hyperparameters.batch_size", "invalid_type"),
        (
            {"hyperparameters": {"learning_rate_multiplier": 0}},
            "hyperparameters.learning_rate_multiplier",
            "integer_below_min_value",
        ),
        ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta", "unknown_parameter"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}}, "method.type", "unsupported_method"),
        ({"method": {"type": "reinforcement"}}, "method.type", "unsupported_method"),
        ({"method": {"type": "magic"}}, "method.type", "invalid_value"),
        ({"suffix": ""}, "suffix", "string_below_min_length"),
        ({"suffix": "x" * 65}, "suffix", "string_above_max_length"),
        ({"suffix": "a:b"}, "suffix", "invalid_value"),
        ({"seed": -1}, "seed", "integer_below_min_value"),
        ({"seed": 2**31}, "seed", "integer_above_max_value"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata", "array_above_max_length"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "unsupported_integration"),
        ({"tunesmith": {"lora_q": 4}}, "tunesmith.lora_q", "unknown_parameter"),
        ({"n_epochs": 3}, "n_epochs", "unknown_parameter"),
    ],
)
def test_what_is_refused_at_once(
    shared_api: TestClient, shared_file: str, body: dict[str, Any], param: str, code: str
) -> None:
    answer = shared_api.post(JOBS, json={"model": MODEL, "training_file": shared_file, **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error
    assert shared_api.get(JOBS).json()["data"] == []


@pytest.mark.parametrize("missing", ["model", "training_file"])
def test_required_fields(shared_api: TestClient, missing: str) -> None:
    body = {"model": MODEL, "training_file": "file-x"}
    del body[missing]
    error = shared_api.post(JOBS, json=body).json()["error"]
    assert error["message"] == f"Missing required parameter: '{missing}'."
    assert error["param"] == missing


def test_a_file_of_another_purpose_is_refused(api: TestClient) -> None:
    form = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", b"{}")}}
    file_id = api.post("/v1/files", **form).json()["id"]
    answer = api.post(JOBS, json={"model": MODEL, "training_file": file_id})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "training_file"


def test_lists_are_newest_first_and_page(api: TestClient, upload: Upload) -> None:
    file_id = upload()
    ids = [create(api, file_id)["id"] for _ in range(3)]
    page = api.get(JOBS, params={"limit": 2}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    rest = api.get(JOBS, params={"limit": 2, "after": ids[1]}).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == ([ids[0]], False)


def test_metadata_filters(api: TestClient, upload: Upload) -> None:
    file_id = upload()
    plain = create(api, file_id)["id"]
    desk = create(api, file_id, metadata={"team": "desk", "try": "1"})["id"]
    field = create(api, file_id, metadata={"team": "field"})["id"]

    def found(**query: str) -> list[str]:
        return [job["id"] for job in api.get(JOBS, params=query).json()["data"]]

    assert found() == [field, desk, plain]
    assert found(**{"metadata[team]": "desk"}) == [desk]
    assert found(**{"metadata[team]": "desk", "metadata[try]": "2"}) == []
    assert found(metadata="null") == [plain]
    assert api.get(JOBS, params={"metadata": "team"}).status_code == 400


def test_cancel_once_and_never_again(api: TestClient, upload: Upload) -> None:
    job_id = create(api, upload())["id"]
    cancelled = api.post(f"{JOBS}/{job_id}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] >= cancelled["created_at"]
    for action in ("cancel", "pause", "resume"):
        answer = api.post(f"{JOBS}/{job_id}/{action}")
        assert answer.status_code == 409
        assert answer.headers["x-should-retry"] == "false"
        assert answer.json()["error"]["code"] == "invalid_job_state"


def test_events_and_checkpoints_answer_get_and_post(api: TestClient, upload: Upload) -> None:
    job_id = create(api, upload())["id"]
    api.post(f"{JOBS}/{job_id}/cancel")
    for method in ("GET", "POST"):
        events = api.request(method, f"{JOBS}/{job_id}/events", params={"limit": 1000}).json()
        assert events["data"][-1]["message"] == f"Created fine-tuning job: {job_id}"
        newest = api.request(method, f"{JOBS}/{job_id}/events", params={"limit": 1}).json()
        assert (newest["data"][0], newest["has_more"]) == (events["data"][0], True)
        older = api.request(method, f"{JOBS}/{job_id}/events", params={"after": newest["data"][0]["id"]}).json()
        assert older["data"] == events["data"][1:]
        checkpoints = api.request(method, f"{JOBS}/{job_id}/checkpoints").json()
        assert checkpoints == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/checkpoints"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
    ],
)
def test_an_unknown_job(shared_api: TestClient, method: str, action: str) -> None:
    answer = shared_api.request(method, f"{JOBS}/ftjob-none{action}")
    assert answer.status_code == 404
    assert "ftjob-none" in answer.json()["error"]["message"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "after=ftjob-none"])
def test_a_wrong_query(shared_api: TestClient, query: str) -> None:
    answer = shared_api.get(f"{JOBS}?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]

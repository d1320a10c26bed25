"""/api/estimate, /api/estimate/compare, /api/jobs/{id}/cost and /api/prices: anonymous, wrong and right."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tunesmith.catalog.models import embedded_model

MODEL = embedded_model().id
Upload = Callable[..., str]
ENDPOINTS = [
    ("POST", "/api/estimate"),
    ("POST", "/api/estimate/compare"),
    ("GET", "/api/jobs/ftjob-x/cost"),
    ("GET", "/api/prices"),
]
COMPARE: dict[str, Any] = {
    "tuned": {"model": MODEL, "prompt_tokens": 50, "training_cost": "12"},
    "base": {"model": "OpenAI/gpt-4.1", "prompt_tokens": 2_000},
    "message_tokens": 100,
    "answer_tokens": 50,
    "calls_per_month": 20_000,
}


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_nobody_gets_in_without_a_key(shared_api: TestClient, method: str, path: str) -> None:
    for header in ("", "Bearer sk-wrong"):
        answer = shared_api.request(method, path, json={}, headers={"authorization": header})
        assert answer.status_code == 401, answer.text


def test_an_estimate_foretells_its_job(api: TestClient, upload: Upload) -> None:
    body = {
        "model": MODEL,
        "training_file": upload(20),
        "hyperparameters": {"n_epochs": 2, "batch_size": 4},
        "tunesmith": {"validation_split": 0.2},
    }
    answer = api.post("/api/estimate", json=body)
    assert answer.status_code == 200, answer.text
    quote = answer.json()
    assert (quote["training_examples"], quote["validation_examples"], quote["total_steps"]) == (16, 4, 8)
    assert quote["trained_tokens"] == 2 * quote["epoch_tokens"] > 0
    price = quote["training_price_per_million_tokens"]
    assert price == {"amount": "0.05", "currency": "USD"}
    assert quote["cost"]["amount"] == _times_a_twentieth_of_a_millionth(quote["trained_tokens"])
    assert 0 < quote["time"]["low_s"] < quote["time"]["likely_s"] < quote["time"]["high_s"]
    assert quote["time"]["basis"] == "probe"
    assert "guess" in quote["time"]["detail"]
    assert quote["fit"]["verdict"] in ("fits", "tight", "too big")
    assert "GB" in quote["fit"]["reason"]
    assert 1e9 < quote["peak_memory_bytes"] < 4e9
    assert quote["shared_prefix_tokens"] > quote["computed_tokens"] / 2, "the rows are equal"
    nano = next(cost for cost in quote["published"] if cost["model"] == "gpt-4.1-nano")
    assert (nano["provider"], nano["training"]["currency"], nano["as_of"][:4]) == ("OpenAI", "USD", "2026")
    assert next(cost for cost in quote["published"] if cost["provider"] == "Azure")["hosting_per_hour"]
    assert api.get("/v1/fine_tuning/jobs").json()["data"] == [], "an estimate makes no job"

    job = api.post("/v1/fine_tuning/jobs", json=body).json()
    assert job["seed"] == quote["seed"]
    cost = _until(lambda: api.get(f"/api/jobs/{job['id']}/cost").json(), lambda cost: cost["quote"])
    api.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel")
    for exact in ("trained_tokens", "computed_tokens", "cost", "batch_size", "total_steps", "peak_memory_bytes"):
        assert cost["quote"][exact] == quote[exact]
    assert (cost["object"], cost["job_id"]) == ("fine_tuning.job.cost", job["id"])
    ended = _until(lambda: api.get(f"/api/jobs/{job['id']}/cost").json(), lambda cost: cost["actual"])
    assert ended["status"] == ended["actual"]["status"] == "cancelled"
    assert ended["actual"]["cost"]["currency"] == "USD"


def test_bad_data_is_a_400_that_names_its_line(api: TestClient) -> None:
    row = {"messages": [{"role": "user", "content": "code?"}, {"role": "assistant", "content": "Z-1"}]}
    for text, line, code in [
        ("\n".join([*[json.dumps(row)] * 11, '{"messages": 7}']), "Line 12", "invalid_training_file"),
        ("\n".join([json.dumps(row)] * 3), "3 example(s)", "invalid_n_examples"),
        ("{}\n" * 12, "Line 1", "invalid_training_file"),
    ]:
        form = {"data": {"purpose": "fine-tune"}, "files": {"file": ("rows.jsonl", text.encode())}}
        file_id = api.post("/v1/files", **form).json()["id"]
        answer = api.post("/api/estimate", json={"model": MODEL, "training_file": file_id})
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == (code, "training_file")
        assert line in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": MODEL}, "training_file"),
        ({"model": "gpt-none", "training_file": "FILE"}, "model"),
        ({"model": MODEL, "training_file": "file-none"}, "training_file"),
        ({"model": MODEL, "training_file": "FILE", "validation_file": "file-none"}, "validation_file"),
        ({"model": MODEL, "training_file": "FILE", "method": {"type": "dpo"}}, "method.type"),
        ({"model": MODEL, "training_file": "FILE", "hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"model": MODEL, "training_file": "FILE", "price": 3}, "price"),
    ],
)
def test_what_an_estimate_refuses(shared_api: TestClient, body: dict[str, Any], param: str) -> None:
    form = {"data": {"purpose": "fine-tune"}, "files": {"file": ("a.jsonl", b"{}")}}
    file_id = shared_api.post("/v1/files", **form).json()["id"]
    filled = {name: file_id if value == "FILE" else value for name, value in body.items()}
    answer = shared_api.post("/api/estimate", json=filled)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_bad_price_table_is_a_clear_answer(api: TestClient, upload: Upload) -> None:
    (api.app.state.settings.home / "prices.json").write_text('{"currency": "USD"}')  # type: ignore[attr-defined]
    for answer in (
        api.get("/api/prices"),
        api.post("/api/estimate/compare", json=COMPARE),
    ):
        assert answer.status_code == 500
        assert answer.headers["x-should-retry"] == "false"
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("invalid_prices", "server_error")
        assert "default" in error["message"]
        assert str(api.app.state.settings.home) not in answer.text  # type: ignore[attr-defined]
    answer = api.post("/api/estimate", json={"model": MODEL, "training_file": upload(12)})
    assert answer.status_code == 200, "tokens, time and memory need no prices"
    quote = answer.json()
    assert quote["cost"] is quote["training_price_per_million_tokens"] is quote["hosting_per_hour"] is None
    assert (quote["published"], quote["trained_tokens"] > 0, quote["time"]["low_s"] > 0) == ([], True, True)
    assert "default" in quote["no_prices"]
    assert str(api.app.state.settings.home) not in answer.text  # type: ignore[attr-defined]


def test_a_comparison(shared_api: TestClient) -> None:
    answer = shared_api.post("/api/estimate/compare", json=COMPARE)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["verdict"], found["break_even_calls_per_month"]) == ("from break-even", 16_145)
    assert found["base"]["price_per_call"] == {"amount": "0.0046", "currency": "USD"}
    assert found["tuned"]["hosting_per_month"]["amount"] == "73"
    never = COMPARE | {"base": {"model": MODEL, "prompt_tokens": 50}}
    found = shared_api.post("/api/estimate/compare", json=never).json()
    assert (found["verdict"], found["break_even_calls_per_month"]) == ("never", None)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"tuned": None}, "tuned", "invalid_type"),
        ({"answer_tokens": -1}, "answer_tokens", "integer_below_min_value"),
        ({"months": 0}, "months", "integer_below_min_value"),
        ({"base": {"model": "OpenAI/gpt-none", "prompt_tokens": 1}}, "base.model", "unknown_price"),
        ({"base": {"model": "no-such-model", "prompt_tokens": 1}}, "base.model", "unknown_price"),
        ({"tuned": {"model": "ft:no-such-model:me::1", "prompt_tokens": 1}}, "tuned.model", "unknown_price"),
        ({"base": {"model": "x", "prompt_tokens": 1, "input_per_million_tokens": -1}}, None, None),
        ({"base": {"model": "x", "prompt_tokens": 1, "input_per_million_tokens": "NaN"}}, None, None),
        ({"base": {"model": "x", "prompt_tokens": 1, "input_per_million_tokens": "cheap"}}, None, None),
        ({"base": COMPARE["base"] | {"hosting_hours_per_month": "1e-999999"}}, "base.hosting_hours_per_month", None),
        ({"base": {"model": "x", "prompt_tokens": 1, "price": 1}}, "base.price", "unknown_parameter"),
    ],
)
def test_what_a_comparison_refuses(
    shared_api: TestClient, change: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = shared_api.post("/api/estimate/compare", json=COMPARE | change)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == (param or "base.input_per_million_tokens")
    assert code is None or error["code"] == code


def test_a_job_that_is_not_there_has_no_cost(shared_api: TestClient) -> None:
    answer = shared_api.get("/api/jobs/ftjob-none/cost")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "fine_tune_not_found")


def test_prices_are_in_the_form_of_their_file(shared_api: TestClient) -> None:
    table = shared_api.get("/api/prices").json()
    assert table["models"][MODEL]["training_per_million_tokens"] == "0.05"
    assert {price["provider"] for price in table["published"]} == {"OpenAI", "Azure"}


def _times_a_twentieth_of_a_millionth(num_tokens: int) -> str:
    """tokens * 0.05 / 1,000,000 in whole numbers: hundred-millionths, five a token."""
    text = f"{num_tokens * 5:09d}"
    return f"{int(text[:-8])}.{text[-8:]}".rstrip("0").rstrip(".")


def _until(look: Callable[[], Any], is_there: Callable[[Any], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not is_there(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found

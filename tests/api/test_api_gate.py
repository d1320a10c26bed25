"""Keys, limits, headers and errors: what every address has in common."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from tunesmith.api.app import create_app
from tunesmith.core.settings import Settings

ADDRESSES = [
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/file-x"),
    ("GET", "/v1/files/file-x/content"),
    ("DELETE", "/v1/files/file-x"),
    ("GET", "/v1/fine_tuning/jobs"),
    ("POST", "/v1/fine_tuning/jobs"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-x"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-x/cancel"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-x/pause"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-x/resume"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-x/events"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-x/checkpoints"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/m"),
    ("DELETE", "/v1/models/m"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/nothing"),
]


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_every_address_asks_for_a_key(shared_api: TestClient, method: str, path: str) -> None:
    answer = shared_api.request(method, path, headers={"authorization": ""})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert error["message"].startswith("You didn't provide an API key.")
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_api_key")


@pytest.mark.parametrize(
    "header", ["Bearer sk-wrong", "Bearer ", "Basic {key}", "{key}", "Bearer {key}x", "Bearer \xe9"]
)
def test_a_wrong_key_is_refused(shared_api: TestClient, header: str) -> None:
    key = shared_api.app.state.first_key
    answer = shared_api.get("/v1/files", headers={"authorization": header.format(key=key).encode("latin-1")})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert key not in answer.text


def test_a_key_is_accepted_whatever_the_case_of_bearer(shared_api: TestClient) -> None:
    key = shared_api.app.state.first_key
    assert shared_api.get("/v1/files", headers={"authorization": f"bearer {key}"}).status_code == 200


def test_the_first_key_is_made_once_and_kept_as_a_hash(settings: Settings) -> None:
    first, second = create_app(settings), create_app(settings)
    with TestClient(first):
        key = first.state.first_key
    with TestClient(second) as client:
        assert second.state.first_key is None
        assert client.get("/v1/files", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert re.fullmatch(r"sk-[A-Za-z0-9]{48}", key)
    written = [path.read_bytes() for path in settings.home.glob("tunesmith.db*")]
    assert written
    assert not any(key.encode() in content for content in written)
    kept = settings.home / "first_key"
    assert kept.read_text() == f"{key}\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_first_key_that_cannot_be_kept_does_not_count(settings: Settings) -> None:
    blocked = settings.home / "first_key"
    blocked.mkdir()
    with pytest.raises(IsADirectoryError), TestClient(create_app(settings)):
        pass
    blocked.rmdir()
    app = create_app(settings)
    with TestClient(app):
        assert blocked.read_text() == f"{app.state.first_key}\n"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/fine_tuning/jobs", rb'{"model":"\ud800","training_file":"f"}', "model"),
        ("/v1/fine_tuning/jobs", rb'{"model":"m","training_file":"f","metadata":{"\udfff":"a"}}', "metadata"),
        ("/v1/chat/completions", rb'{"model":"m","messages":[{"role":"user","content":"\ud800"}]}', "messages"),
        ("/v1/chat/completions", rb'{"model":"m","messages":[],"\ud800":1}', None),
    ],
)
def test_half_of_a_surrogate_pair_is_refused(shared_api: TestClient, path: str, body: bytes, param: str | None) -> None:
    answer = shared_api.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert "half of a surrogate pair" in error["message"]


def test_health_and_readiness_need_no_key(api: TestClient) -> None:
    del api.headers["authorization"]
    assert api.get("/health").json() == {"status": "ok"}
    answer = api.get("/ready")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "checks": {"database": "ok", "blobs": "ok", "base_model": "ok"}}


def test_not_ready_without_a_base_model(api: TestClient, tmp_path: Path) -> None:
    (tmp_path / "models").unlink()
    answer = api.get("/ready")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["base_model"].startswith("No base model is installed.")
    assert checks["database"] == "ok"


def test_every_response_has_the_headers_of_openai(shared_api: TestClient) -> None:
    for answer in (
        shared_api.get("/health"),
        shared_api.get("/v1/files"),
        shared_api.get("/v1/nothing"),
        shared_api.get("/v1/files/no"),
    ):
        assert re.fullmatch(r"req_[A-Za-z0-9]{32}", answer.headers["x-request-id"])
        assert answer.headers["openai-version"] == "2020-10-01"
        assert answer.headers["openai-organization"] == "acme"
        assert answer.headers["openai-processing-ms"].isdigit()
    assert shared_api.get("/health").headers["x-request-id"] != shared_api.get("/health").headers["x-request-id"]


def test_other_origins_get_no_permission(shared_api: TestClient) -> None:
    answer = shared_api.get("/v1/files", headers={"origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    preflight = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    assert shared_api.options("/v1/files", headers=preflight).status_code == 405


def test_an_unknown_address(shared_api: TestClient) -> None:
    answer = shared_api.post("/v1/nothing")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "message": "Invalid URL (POST /v1/nothing)",
            "type": "invalid_request_error",
            "param": None,
            "code": "unknown_url",
        }
    }


def test_a_method_that_an_address_does_not_have(shared_api: TestClient) -> None:
    answer = shared_api.put("/v1/files")
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_supported"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"{'a': 1}", b"\xff\xfe"])
def test_a_body_that_is_not_a_json_object(shared_api: TestClient, body: bytes) -> None:
    for path in ("/v1/fine_tuning/jobs", "/v1/chat/completions"):
        answer = shared_api.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_json_body_that_is_too_large_is_refused_by_its_declared_length(shared_api: TestClient) -> None:
    answer = shared_api.post("/v1/chat/completions", content=b" " * (17 * 2**20))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_json_body_that_is_too_large_is_refused_while_it_comes(shared_api: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * 2**20

    answer = shared_api.post("/v1/chat/completions", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert "16,777,216 bytes" in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_bug_of_ours_is_a_500_that_tells_only_its_request_id(
    api: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with api.app.state.services.database.session() as session:
        session.execute(text("DROP TABLE files"))
    answer = api.get("/v1/files")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["type"] == "server_error"
    assert answer.headers["x-request-id"] in error["message"]
    assert "no such table" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text
    assert "no such table" in caplog.text

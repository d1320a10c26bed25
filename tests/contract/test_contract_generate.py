"""POST /api/data/generate: through a recorded teacher, by this server's own model, across a kill of the server."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from job_steps import MODEL
from live_server import LiveServer, live_server
from pypdf import PdfWriter

from recorded_teacher import KEY, TOPICS, Fault, RecordedTeacher, error_body, recorded_teacher
from tunesmith.core.settings import Settings
from tunesmith.store.db import Database
from tunesmith.store.repos.files import FileRepo

PATH = "/api/data/generate"
DEADLINE_S = 300


@pytest.fixture(scope="module")
def shared_teacher() -> Iterator[RecordedTeacher]:
    with recorded_teacher() as running:
        yield running


@pytest.fixture
def teacher(shared_teacher: RecordedTeacher) -> RecordedTeacher:
    """Without the faults and the memory of other tests."""
    shared_teacher.faults.clear()
    shared_teacher.delay_s = 0.0
    for seen in (shared_teacher.asked, shared_teacher.answered, shared_teacher.bodies, shared_teacher.authorizations):
        seen.clear()
    return shared_teacher


def host_of(teacher: RecordedTeacher) -> str:
    return teacher.base_url.removeprefix("http://").removesuffix("/v1")


@pytest.fixture(scope="module")
def allowing(shared_teacher: RecordedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server without any model, whose owner allows the recorded teacher."""
    with live_server(tmp_path_factory.mktemp("home"), teacher_hosts=host_of(shared_teacher)) as running:
        yield running


def client_of(server: LiveServer) -> httpx.Client:
    headers = {"authorization": f"Bearer {server.key}"}
    return httpx.Client(base_url=server.base_url.removesuffix("/v1"), headers=headers, timeout=60)


@pytest.fixture
def http(allowing: LiveServer) -> Iterator[httpx.Client]:
    with client_of(allowing) as client:
        yield client


def body_for(teacher: RecordedTeacher, /, **changes: Any) -> dict[str, Any]:
    access = {"base_url": teacher.base_url, "model": "m", "api_key": KEY}
    plan = {"rows": 3, "topics": list(TOPICS), "max_answer_tokens": 160, "concurrency": 1, "seed": 5}
    return {"teacher": access, **plan, **changes}


def start(http: httpx.Client, body: dict[str, Any]) -> str:
    response = http.post(PATH, json=body)
    assert response.status_code == 202, response.text
    shown = response.json()
    assert (shown["object"], shown["status"]) == ("data.generation", "running")
    identifier: str = shown["id"]
    return identifier


def wait(http: httpx.Client, generation_id: str, *, until: str = "") -> dict[str, Any]:
    """Until it does not run any more."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        shown: dict[str, Any] = http.get(f"{PATH}/{generation_id}").raise_for_status().json()
        if shown["status"] != "running":
            assert not until or shown["status"] == until, shown
            return shown
        assert time.monotonic() < deadline_s, shown
        time.sleep(0.05)


def upload(http: httpx.Client, name: str, content: bytes, purpose: str) -> str:
    response = http.post("/v1/files", files={"file": (name, content)}, data={"purpose": purpose})
    identifier: str = response.raise_for_status().json()["id"]
    return identifier


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert KEY not in response.text
    return error


def test_a_generation_becomes_a_file_that_trains(
    http: httpx.Client, teacher: RecordedTeacher, allowing: LiveServer
) -> None:
    shown = wait(
        http, start(http, body_for(teacher, prices={"input": 0.1, "output": "2.00"}, max_cost=1)), until="succeeded"
    )
    assert (shown["stopped_by"], shown["progress"], shown["eta_s"], shown["error"]) == ("rows", 1.0, None, None)
    report = shown["report"]
    assert report["num_rows"] == 3
    assert report["dropped"][0]["samples"][0]["what"]
    assert isinstance(shown["usage"]["cost"], str)
    assert 0 < Decimal(shown["usage"]["cost"]) < 1
    assert shown["report"]["usage"]["cost"] == shown["usage"]["cost"]
    assert (shown["max_cost"], shown["prices"]) == ("1", {"input": "0.1", "output": "2", "currency": None})
    file = http.get(f"/v1/files/{shown['file']}").raise_for_status().json()
    assert (file["purpose"], file["filename"]) == ("fine-tune", f"{shown['id']}.jsonl")
    rows = http.get(f"/v1/files/{shown['file']}/content").text.splitlines()
    assert [[said["role"] for said in json.loads(row)["messages"]] for row in rows] == [["user", "assistant"]] * 3
    assert set(teacher.authorizations) == {f"Bearer {KEY}"}
    lineage = lineage_of(allowing, shown["file"])
    assert (lineage["action"], lineage["teacher_model"], lineage["seed"]) == ("generate", "m", 5)
    assert lineage["plan"]["topics"] == list(TOPICS)
    newest = http.get(PATH, params={"limit": 1}).json()
    assert newest["data"][0]["id"] == shown["id"]


def lineage_of(server: LiveServer, file_id: str) -> dict[str, Any]:
    database = Database(Settings(home=server.home).resolved_database_url)
    try:
        with database.reading() as session:
            row = FileRepo(session).get(file_id)
            assert row is not None
            assert row.lineage is not None
            return dict(row.lineage)
    finally:
        database.close()


def test_the_key_is_nowhere_on_the_disk(http: httpx.Client, teacher: RecordedTeacher, allowing: LiveServer) -> None:
    teacher.faults.append(Fault(401, error_body(f"Incorrect API key provided: {KEY}")))
    failed = wait(http, start(http, body_for(teacher)), until="failed")
    assert failed["error"]["code"] == "teacher_unauthorized"
    assert KEY not in json.dumps(failed)
    wait(http, start(http, body_for(teacher)), until="succeeded")
    secrets = (KEY.encode(), allowing.key.encode())
    files = [path for path in allowing.home.rglob("*") if path.is_file() and path.name != "first_key"]
    assert len(files) > 5
    assert not [path for path in files if any(secret in path.read_bytes() for secret in secrets)]


def test_seeds_and_documents_are_files(http: httpx.Client, teacher: RecordedTeacher) -> None:
    messages = [{"role": "user", "content": "Who mills?"}, {"role": "assistant", "content": "The miller."}]
    seeds = upload(http, "seeds.jsonl", json.dumps({"messages": messages}).encode(), "fine-tune")
    text = b"The mill grinds rye on Mondays and wheat on all other days. " * 3
    document = upload(http, "mill.txt", text, "user_data")
    body = body_for(teacher, rows=1, seeds=[seeds], documents=[document], topics=[])
    shown = wait(http, start(http, body), until="succeeded")
    assert (shown["report"]["num_seed_rows"], shown["report"]["num_passages"]) == (1, 1)
    asked = teacher.bodies[0]["messages"][-1]["content"]
    assert "grinds rye" in asked
    assert "Who mills?" in asked


def test_files_that_cannot_serve_are_refused(http: httpx.Client, teacher: RecordedTeacher) -> None:
    writer, scan = PdfWriter(), BytesIO()
    writer.add_blank_page(width=612, height=792)
    writer.write(scan)
    bad_seeds = upload(http, "seeds.jsonl", b'{"messages": 1}\n', "fine-tune")
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"documents": [upload(http, "scan.pdf", scan.getvalue(), "user_data")]}, "document_without_text", "documents"),
        ({"documents": [upload(http, "a.docx", b"x" * 100, "user_data")]}, "unsupported_document", "documents"),
        ({"documents": [upload(http, "a.txt", b"\xff" * 100, "user_data")]}, "document_unreadable", "documents"),
        ({"documents": [bad_seeds]}, "invalid_file", "documents"),
        ({"documents": ["file-none"]}, "invalid_file", "documents"),
        ({"seeds": [upload(http, "a.txt", b"x" * 100, "user_data")]}, "invalid_file", "seeds"),
        ({"seeds": [bad_seeds]}, "invalid_seeds", "seeds"),
        ({"topics": []}, "missing_required_parameter", "seeds"),
    ]
    for changes, code, param in cases:
        error = error_of(http.post(PATH, json=body_for(teacher, **changes)), 400)
        assert (error["code"], error["param"]) == (code, param), changes
    assert teacher.bodies == []


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"rows": 0}, "integer_below_min_value", "rows"),
        ({"rows": 10**9}, "integer_above_max_value", "rows"),
        ({"unheard_of": 1}, "unknown_parameter", "unheard_of"),
        ({"teacher": {}}, "missing_required_parameter", "teacher.model"),
        ({"teacher": {"model": "m", "api_key": ["sk-secret-1"]}}, "invalid_type", "teacher.api_key"),
        ({"teacher": {"model": "m", "api_key": "sk-secret-1\n"}}, "invalid_value", "teacher.api_key"),
        ({"teacher": {"model": "m", "base_url": "http://a:sk-secret-1@b.c"}}, "invalid_value", "teacher.base_url"),
        ({"teacher": {"model": "m", "base_url": "http://["}}, "invalid_value", "teacher.base_url"),
        ({"teacher": {"model": "m", "base_url": "http://a b/v1"}}, "invalid_value", "teacher.base_url"),
        ({"teacher": {"model": "m", "base_url": "http://a:99999/v1"}}, "invalid_value", "teacher.base_url"),
        ({"lengths": ["endless"]}, "invalid_value", "lengths[0]"),
        ({"max_cost": 0}, "integer_below_min_value", "max_cost"),
        ({"max_cost": "much"}, "invalid_value", "max_cost"),
        ({"prices": {"input": "NaN"}}, "invalid_value", "prices.input"),
        ({"max_cost": 1}, "invalid_parameter_combination", "max_cost"),
        ({"max_tokens": 10}, "cap_too_small", "max_tokens"),
    ],
)
def test_a_wrong_field_is_named(
    http: httpx.Client, teacher: RecordedTeacher, changes: dict[str, Any], code: str, param: str
) -> None:
    response = http.post(PATH, json=body_for(teacher, **changes))
    error = error_of(response, 400)
    assert (error["code"], error["param"]) == (code, param)
    assert "sk-secret-1" not in response.text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/v1",
        "http://localhost:9/v1",
        "http://2130706433:9/v1",
        "http://[::1]:9/v1",
        "http://[::ffff:127.0.0.1]:9/v1",
        "http://10.0.0.1/v1",
        "http://169.254.169.254/latest/meta-data",
        "http://nobody.invalid/v1",
    ],
)
def test_private_addresses_are_refused(http: httpx.Client, teacher: RecordedTeacher, url: str) -> None:
    body = body_for(teacher, teacher={"base_url": url, "model": "m", "api_key": KEY})
    error = error_of(http.post(PATH, json=body), 403)
    assert (error["code"], error["param"]) == ("teacher_address_refused", "teacher.base_url")


def test_a_redirect_is_not_followed(http: httpx.Client, teacher: RecordedTeacher) -> None:
    with recorded_teacher() as other:
        teacher.faults.append(Fault(307, b"", {"location": f"{other.base_url}/chat/completions"}))
        failed = wait(http, start(http, body_for(teacher)), until="failed")
        assert failed["error"]["code"] == "teacher_redirects"
        assert other.bodies == []


def test_strangers_are_refused(allowing: LiveServer, teacher: RecordedTeacher) -> None:
    root = allowing.base_url.removesuffix("/v1")
    for headers in ({}, {"authorization": "Bearer sk-wrong"}):
        with httpx.Client(base_url=root, headers=headers) as stranger:
            for path in ("", "/gen-x", "/gen-x/cancel", "/gen-x/resume"):
                method = "POST" if path.count("/") == 2 or not path else "GET"
                assert stranger.request(method, PATH + path, json=body_for(teacher)).status_code == 401
            assert stranger.get(PATH).status_code == stranger.delete(f"{PATH}/gen-x").status_code == 401
    assert teacher.bodies == []


def test_what_does_not_exist_is_not_found(http: httpx.Client) -> None:
    for method, path in (
        ("GET", "/gen-none"),
        ("DELETE", "/gen-none"),
        ("POST", "/gen-none/cancel"),
        ("POST", "/gen-none/resume"),
    ):
        assert error_of(http.request(method, PATH + path), 404)["code"] == "generation_not_found"


def test_cancel_and_resume(http: httpx.Client, teacher: RecordedTeacher) -> None:
    teacher.delay_s = 0.1
    identifier = start(http, body_for(teacher))
    assert error_of(http.post(f"{PATH}/{identifier}/resume"), 409)["code"] == "generation_running"
    while not teacher.answered:
        time.sleep(0.02)
    assert http.post(f"{PATH}/{identifier}/cancel").status_code == 200
    assert wait(http, identifier, until="cancelled")["file"] is None
    assert error_of(http.post(f"{PATH}/{identifier}/cancel"), 409)["code"] == "generation_ended"
    teacher.delay_s = 0.0
    resumed = http.post(f"{PATH}/{identifier}/resume", json={"api_key": KEY})
    assert resumed.status_code == 202
    shown = wait(http, identifier, until="succeeded")
    assert max(teacher.asked.values()) == 1
    assert shown["usage"]["num_calls"] == len(teacher.bodies)
    assert error_of(http.post(f"{PATH}/{identifier}/resume"), 409)["code"] == "generation_ended"


def test_a_higher_cap_goes_on_and_gives_another_file(http: httpx.Client, teacher: RecordedTeacher) -> None:
    capped = wait(http, start(http, body_for(teacher, rows=8, max_tokens=1500)), until="succeeded")
    assert capped["stopped_by"] == "tokens"
    assert capped["usage"]["total_tokens"] <= 1500
    raised = http.post(f"{PATH}/{capped['id']}/resume", json={"api_key": KEY, "max_tokens": 50_000})
    assert raised.status_code == 202
    whole = wait(http, capped["id"], until="succeeded")
    assert whole["file"] != capped["file"]
    assert whole["report"]["num_rows"] > capped["report"]["num_rows"]
    assert max(teacher.asked.values()) == 1


def folders_of(server: LiveServer) -> set[str]:
    return {path.name for path in (server.home / "generations").iterdir()}


def test_what_finds_no_place_leaves_nothing(http: httpx.Client, teacher: RecordedTeacher, allowing: LiveServer) -> None:
    teacher.delay_s = 0.5
    stopped = wait(http, start(http, body_for(teacher, rows=8, max_tokens=1500)), until="succeeded")
    running = [start(http, body_for(teacher, topics=[topic])) for topic in TOPICS[:4]]
    before = folders_of(allowing)
    assert error_of(http.post(PATH, json=body_for(teacher)), 429)["code"] == "generations_busy"
    raised = http.post(f"{PATH}/{stopped['id']}/resume", json={"api_key": KEY, "max_tokens": 50_000})
    assert error_of(raised, 429)["code"] == "generations_busy"
    assert folders_of(allowing) == before
    assert http.get(f"{PATH}/{stopped['id']}").json()["max_tokens"] == 1500
    for identifier in running:
        assert http.post(f"{PATH}/{identifier}/cancel").status_code == 200
    teacher.delay_s = 0.0
    for identifier in running:
        wait(http, identifier, until="cancelled")


def test_pages_follow_one_another(http: httpx.Client, teacher: RecordedTeacher) -> None:
    for _ in range(3):
        wait(http, start(http, body_for(teacher, rows=1)))
    whole = http.get(PATH, params={"limit": 100}).json()
    seen: list[str] = []
    page: dict[str, Any] = {"has_more": True}
    while page["has_more"]:
        page = http.get(PATH, params={"limit": 2} | ({"after": seen[-1]} if seen else {})).json()
        seen += [shown["id"] for shown in page["data"]]
    assert seen == [shown["id"] for shown in whole["data"]]
    assert error_of(http.get(PATH, params={"after": "gen-none"}), 400)["param"] == "after"


def test_a_deleted_one_is_gone_and_its_file_stays(
    http: httpx.Client, teacher: RecordedTeacher, allowing: LiveServer
) -> None:
    teacher.delay_s = 0.2
    identifier = start(http, body_for(teacher, rows=1))
    assert error_of(http.delete(f"{PATH}/{identifier}"), 409)["code"] == "generation_running"
    teacher.delay_s = 0.0
    shown = wait(http, identifier, until="succeeded")
    deleted = http.delete(f"{PATH}/{identifier}")
    assert deleted.json() == {"id": identifier, "object": "data.generation", "deleted": True}
    assert error_of(http.get(f"{PATH}/{identifier}"), 404)["code"] == "generation_not_found"
    assert identifier not in folders_of(allowing)
    assert http.get(f"/v1/files/{shown['file']}").status_code == 200


def test_what_is_made_of_an_expiring_file_expires_with_it(http: httpx.Client, teacher: RecordedTeacher) -> None:
    messages = [{"role": "user", "content": "Who mills?"}, {"role": "assistant", "content": "The miller."}]
    row = json.dumps({"messages": messages}).encode()
    lasting = upload(http, "lasting.jsonl", row, "fine-tune")
    expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    sent = http.post("/v1/files", files={"file": ("s.jsonl", row)}, data={"purpose": "fine-tune", **expiry}).json()
    shown = wait(http, start(http, body_for(teacher, rows=1, seeds=[lasting, sent["id"]])), until="succeeded")
    made = http.get(f"/v1/files/{shown['file']}").json()
    assert made["expires_at"] == sent["expires_at"]


def test_an_expired_generation_is_forgotten(http: httpx.Client, teacher: RecordedTeacher, allowing: LiveServer) -> None:
    shown = wait(http, start(http, body_for(teacher, rows=1)), until="succeeded")
    path = allowing.home / "generations" / shown["id"] / "request.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "expires_at": 1}))
    assert shown["id"] not in {one["id"] for one in http.get(PATH).json()["data"]}
    assert shown["id"] not in folders_of(allowing)


def test_a_damaged_one_is_shown_and_the_list_goes_on(
    http: httpx.Client, teacher: RecordedTeacher, allowing: LiveServer
) -> None:
    shown = wait(http, start(http, body_for(teacher, rows=1)), until="succeeded")
    with (allowing.home / "generations" / shown["id"] / "candidates.jsonl").open("ab") as file:
        file.write(b'{"type":"answ\n')
    (damaged,) = [one for one in http.get(PATH).json()["data"] if one["id"] == shown["id"]]
    assert (damaged["status"], damaged["error"]["code"]) == ("failed", "generation_damaged")
    assert error_of(http.post(f"{PATH}/{shown['id']}/resume"), 409)["code"] == "generation_damaged"
    assert http.delete(f"{PATH}/{shown['id']}").status_code == 200


def test_one_that_another_process_runs_is_cancelled_and_not_resumed(
    http: httpx.Client, teacher: RecordedTeacher, allowing: LiveServer
) -> None:
    teacher.delay_s = 0.2
    with live_server(allowing.home, teacher_hosts=host_of(teacher)) as replica:
        root = replica.base_url.removesuffix("/v1")
        with httpx.Client(base_url=root, headers={"authorization": f"Bearer {allowing.key}"}, timeout=60) as other:
            identifier = start(http, body_for(teacher))
            assert error_of(other.post(f"{PATH}/{identifier}/resume"), 409)["code"] == "generation_running"
            assert other.post(f"{PATH}/{identifier}/cancel").status_code == 200
            wait(http, identifier, until="cancelled")


def killed_server(home: Path, teacher: RecordedTeacher) -> tuple[str, str]:
    """A server that is killed while it generates: the generation's id, and the server's key."""
    with suppress(AssertionError), live_server(home, teacher_hosts=host_of(teacher)) as server:  # it asserts a good end
        with client_of(server) as http:
            identifier = start(http, body_for(teacher))
            while sum(teacher.answered.values()) < 5:
                time.sleep(0.02)
        os.kill(server.pid, signal.SIGKILL)
    return identifier, server.key


def test_after_a_kill_of_the_server_it_is_interrupted_and_resumes(teacher: RecordedTeacher, tmp_path: Path) -> None:
    teacher.delay_s = 0.1
    identifier, key = killed_server(tmp_path, teacher)
    teacher.delay_s = 0.0
    with live_server(tmp_path, teacher_hosts=host_of(teacher)) as server:
        root = server.base_url.removesuffix("/v1")
        with httpx.Client(base_url=root, headers={"authorization": f"Bearer {key}"}, timeout=60) as http:
            assert wait(http, identifier)["status"] == "interrupted"
            assert http.post(f"{PATH}/{identifier}/resume", json={"api_key": KEY}).status_code == 202
            shown = wait(http, identifier, until="succeeded")
    assert shown["report"]["num_rows"] == 3
    num_lost = shown["usage"]["num_lost_calls"]
    assert sum(count - 1 for count in teacher.asked.values()) <= num_lost <= 1


def test_an_orderly_stop_interrupts_too(teacher: RecordedTeacher, tmp_path: Path) -> None:
    teacher.delay_s = 0.3
    with live_server(tmp_path, teacher_hosts=host_of(teacher)) as server, client_of(server) as http:
        identifier = start(http, body_for(teacher))
        while not teacher.answered:
            time.sleep(0.02)
    journal = (tmp_path / "generations" / identifier / "candidates.jsonl").read_text(encoding="utf-8")
    last = json.loads(journal.splitlines()[-1])
    assert (last["type"], last["status"]) == ("ended", "interrupted")


def test_this_server_teaches_itself(server: LiveServer) -> None:
    """The whole way with a real model: six rows about two topics and a document."""
    with client_of(server) as http:
        text = b"The reading room opens at nine. Cards cost two francs a year and are renewed at the desk. " * 2
        document = upload(http, "rules.md", b"# Library\n\n" + text, "user_data")
        body = {
            "teacher": {"model": MODEL},
            "rows": 6,
            "topics": ["bread", "bicycles"],
            "documents": [document],
            "lengths": ["short"],
            "max_answer_tokens": 96,
            "concurrency": 2,
            "max_candidates": 16,
            "max_tokens": 20_000,
        }
        shown = wait(http, start(http, body))
        report = shown["report"]
        assert shown["status"] == "succeeded", shown
        assert shown["usage"]["num_estimated_calls"] == 0
        assert 0 < shown["usage"]["total_tokens"] <= 20_000
        good = report["num_rows"] + report["num_surplus"]
        assert report["num_candidates"] == good + sum(group["count"] for group in report["dropped"])
        assert report["num_rows"] >= 1
        rows = http.get(f"/v1/files/{shown['file']}/content").text.splitlines()
        assert len(rows) == report["num_rows"]
        table = http.get("/api/prices").json()
        assert shown["prices"]["currency"] == table["currency"]
        assert Decimal(shown["prices"]["input"]) > 0
        assert Decimal(shown["usage"]["cost"]) > 0
        free = {**body, "teacher": {"model": "no-such-model"}}
        assert error_of(http.post(PATH, json=free), 404)["code"] == "model_not_found"

"""/api/files: reports, findings, rows, mended and split files; what is refused, shared, kept and forgotten."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dataset_calls import COLOURS, MODEL, ROWS, chat, content_of, good_rows, jsonl, post, when_done
from open_api import opened, settings_in
from starlette.testclient import TestClient

from tunesmith.core.settings import Settings
from tunesmith.data.derived_name import derived_name
from tunesmith.data.rules import RULES
from tunesmith.store.repos.files import FileRepo

ENDPOINTS = [
    ("GET", ""),
    ("GET", "/report"),
    ("GET", "/findings"),
    ("GET", "/rows"),
    ("GET", "/preview"),
    ("POST", "/mend"),
    ("POST", "/split"),
]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
@pytest.mark.parametrize("key", ["", "Bearer sk-" + "x" * 48])
def test_only_a_key_opens(shared_api: TestClient, method: str, path: str, key: str) -> None:
    answer = shared_api.request(method, f"/api/files/file-x{path}", headers={"authorization": key}, json={})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_a_file_that_is_not_there_is_404(shared_api: TestClient, method: str, path: str) -> None:
    body = {"fixes": ["strip"]} if path == "/mend" else {}
    answer = shared_api.request(method, f"/api/files/file-nobody{path}", json=body)
    assert answer.status_code == 404
    assert "file-nobody" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS[1:])
def test_only_files_to_train_on_are_data_sets(shared_api: TestClient, method: str, path: str) -> None:
    file_id = post(shared_api, [b"%PDF-1.7"], purpose="user_data", name="a.pdf")
    assert shared_api.get(f"/api/files/{file_id}").status_code == 200
    body = {"fixes": ["strip"]} if path == "/mend" else {}
    answer = shared_api.request(method, f"/api/files/{file_id}{path}", json=body)
    assert answer.status_code == 400
    assert "'fine-tune'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/report", "/findings", "/rows?rule=duplicate_row", "/preview?line=1"])
def test_a_model_that_nobody_knows_is_404(shared_api: TestClient, path: str) -> None:
    file_id = post(shared_api, ROWS)
    answer = shared_api.get(f"/api/files/{file_id}{path}", params={"model": "nobody"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("rows?limit=0", "limit"),
        ("rows?limit=201", "limit"),
        ("rows?after_line=-1", "after_line"),
        ("rows?rule=nobody", "rule"),
        ("report?refresh=perhaps", "refresh"),
    ],
)
def test_wrong_queries_are_refused(shared_api: TestClient, path: str, param: str) -> None:
    answer = shared_api.get(f"/api/files/{post(shared_api, ROWS)}/{path}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("mend", {}, "fixes", "missing_required_parameter"),
        ("mend", {"fixes": []}, "fixes", "array_below_min_length"),
        ("mend", {"fixes": ["polish"]}, "fixes[0]", "invalid_value"),
        ("mend", {"fixes": ["strip"], "lines": [1]}, "lines", "invalid_parameter_combination"),
        ("mend", {"fixes": ["drop_rows"], "lines": [0]}, "lines[0]", "integer_below_min_value"),
        ("mend", {"fixes": ["drop_rows"], "lines": [999]}, "lines", "invalid_value"),
        ("mend", {"fixes": ["drop_rows"], "rules": ["nobody"]}, "rules[0]", "invalid_value"),
        ("mend", {"fixes": ["drop_rows"], "lines": list(range(1, 36))}, "fixes", "invalid_value"),
        ("mend", {"fixes": ["drop_rows"], "model": "nobody"}, "model", "model_not_found"),
        ("mend", {"fixes": ["strip"], "line": 3}, "line", "unknown_parameter"),
        ("split", {"share": 0}, "share", "integer_below_min_value"),
        ("split", {"share": 1.5}, "share", "decimal_above_max_value"),
        ("split", {"share": 0.5, "count": 3}, "count", "invalid_parameter_combination"),
        ("split", {"count": 35}, None, "invalid_training_file"),
        ("split", {"seed": -1}, "seed", "integer_below_min_value"),
        ("split", {"share": "half"}, "share", "invalid_type"),
    ],
)
def test_impossible_wishes_are_refused(
    shared_api: TestClient, path: str, body: dict[str, Any], param: str | None, code: str
) -> None:
    file_id = post(shared_api, ROWS)
    answer = shared_api.post(f"/api/files/{file_id}/{path}", json=body)
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert shared_api.get(f"/api/files/{file_id}").json()["children"] == []


def test_a_report_is_made_once_and_names_every_fault(api: TestClient, settings: Settings) -> None:
    file_id = post(api, ROWS)
    first = api.get(f"/api/files/{file_id}/report")
    assert first.status_code == 202
    assert first.headers["retry-after"] == "1"
    report = when_done(lambda: api.get(f"/api/files/{file_id}/report")).json()
    assert (report["filename"], report["num_rows"], report["verdict"]) == ("claims.jsonl", 35, "errors")
    assert report["tokens"]["model"] == MODEL
    rules = {group["rule"]: group for group in report["groups"]}
    assert {"invalid_json", "unrecognized_role", "email_address", "whitespace_at_ends", "duplicate_row"} <= set(rules)
    assert rules["invalid_json"]["samples"][0]["line"] == 34
    assert rules["email_address"]["fix"] == "mask_personal_data"
    assert "jane@example.com" not in json.dumps(report)
    again = api.get(f"/api/files/{file_id}/report")
    assert (again.status_code, again.json()) == (200, report)
    assert not list((settings.home / "cache" / "reports").rglob(".making-*"))


def test_every_finding_can_be_streamed_and_rows_come_with_theirs(api: TestClient) -> None:
    file_id = post(api, ROWS)
    unchecked = api.get(f"/api/files/{file_id}/rows", params={"limit": 3}).json()
    assert unchecked["is_checked"] is False
    assert [row["row"] for row in unchecked["data"]] == ROWS[:3]
    assert all("findings" not in row for row in unchecked["data"])

    answer = when_done(lambda: api.get(f"/api/files/{file_id}/findings"))
    assert answer.headers["content-type"] == "application/x-ndjson"
    findings = [json.loads(line) for line in answer.text.splitlines()]
    report = api.get(f"/api/files/{file_id}/report").json()
    assert len(findings) == sum(group["count"] for group in report["groups"])
    assert {finding["rule"] for finding in findings} <= set(RULES)

    lines: list[int] = []
    after = 0
    while True:
        page = api.get(f"/api/files/{file_id}/rows", params={"after_line": after, "limit": 8}).json()
        for row in page["data"]:
            assert row["findings"] == [finding for finding in findings if finding.get("line") == row["line"]]
        lines += [row["line"] for row in page["data"]]
        after = lines[-1]
        if not page["has_more"]:
            break
    assert lines == list(range(1, 36))
    assert page["data"][-2]["raw"] == "{broken"
    assert "row" not in page["data"][-2]


def test_a_preview_shows_what_is_trained(api: TestClient) -> None:
    file_id = post(api, [b"", *ROWS])
    shown = api.get(f"/api/files/{file_id}/preview", params={"line": 2, "model": MODEL}).json()
    (conversation,), (sequence,) = shown["conversations"], shown["sequences"]
    assert conversation["messages"] == ROWS[0]["messages"]
    text = "".join(token["text"] for token in sequence["tokens"])
    assert conversation["rendered"].startswith(text)
    learned = "".join(token["text"] for token in sequence["tokens"] if token["mark"] == "trained")
    assert learned == "red<|im_end|>"
    assert len(shown["digest"]) == 32
    assert api.get(f"/api/files/{file_id}/preview").json()["error"]["param"] == "line"
    beyond = api.get(f"/api/files/{file_id}/preview?line=99")
    assert (beyond.status_code, beyond.json()["error"]["param"]) == (404, "line")
    bad = api.get(f"/api/files/{file_id}/preview?line=35")
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid_training_file")
    assert bad.json()["error"]["message"].startswith("Line 35")


def test_rows_of_one_rule(api: TestClient) -> None:
    file_id = post(api, ROWS)
    found = when_done(lambda: api.get(f"/api/files/{file_id}/rows?rule=whitespace_at_ends")).json()
    assert [row["line"] for row in found["data"]] == [32]
    assert found["data"][0]["row"] == ROWS[31]
    assert api.get(f"/api/files/{file_id}/rows?rule=whitespace_at_ends&after_line=32").json()["data"] == []
    assert api.get(f"/api/files/{file_id}/rows?rule=lone_surrogate").json()["data"] == []


def test_mending_makes_a_new_file_with_its_lineage(api: TestClient) -> None:
    file_id = post(api, ROWS)
    fixes = ["strip", "deduplicate", "drop_rows", "normalise_roles", "mask_personal_data"]
    answer = api.post(f"/api/files/{file_id}/mend", json={"fixes": fixes})
    assert answer.status_code == 200, answer.text
    file, summary = answer.json()["file"], answer.json()["summary"]
    assert (file["filename"], file["parent_id"], file["purpose"]) == ("claims.mended.jsonl", file_id, "fine-tune")
    assert (summary["num_rows_before"], summary["num_rows_after"], summary["num_dropped"]) == (35, 33, 2)
    assert {count["fix"]: count["num_rows"] for count in summary["fixes"]} == dict.fromkeys(fixes, 1)
    assert len(summary["diffs"]) == 5
    assert "jane@example.com" not in answer.text

    before, after = content_of(api, file_id), content_of(api, file["id"])
    assert after[:30] == before[:30]
    assert [json.loads(line)["messages"][0]["content"] for line in after[30:]] == [
        "Write to [EMAIL] about it",
        "Who pays?",
        "And the fence?",
    ]
    assert api.get(f"/api/files/{file_id}").json()["children"] == [file["id"]]
    assert file["lineage"]["action"] == "mend"
    assert file["lineage"]["num_dropped"] == 2
    assert set(api.get(f"/v1/files/{file['id']}").json()) == {
        "id", "object", "bytes", "created_at", "filename", "purpose", "status",
    }  # fmt: skip
    report = when_done(lambda: api.get(f"/api/files/{file['id']}/report")).json()
    assert report["num_errors"] == 0

    nothing = api.post(f"/api/files/{file['id']}/mend", json={"fixes": fixes})
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (400, "nothing_to_mend")


def test_rows_are_dropped_by_line_and_by_rule(api: TestClient) -> None:
    file_id = post(api, ROWS)
    body = {"fixes": ["drop_rows"], "rules": ["email_address", "invalid_json"], "lines": [1]}
    early = api.post(f"/api/files/{file_id}/mend", json=body)
    assert (early.status_code, early.json()["error"]["code"]) == (409, "report_not_ready")
    when_done(lambda: api.get(f"/api/files/{file_id}/report"))
    answer = api.post(f"/api/files/{file_id}/mend", json=body).json()
    before = content_of(api, file_id)
    assert content_of(api, answer["file"]["id"]) == before[1:30] + before[31:33] + before[34:]


def test_rows_that_do_not_fit_the_model_are_dropped(api: TestClient) -> None:
    file_id = post(api, [*good_rows(), chat("word " * 9000, "red")])
    answer = api.post(f"/api/files/{file_id}/mend", json={"fixes": ["drop_rows"]}).json()
    assert answer["summary"]["num_dropped"] == 1
    assert "9,0" in answer["summary"]["diffs"][0]["reason"]


def test_splitting_makes_two_files(api: TestClient) -> None:
    file_id = post(api, good_rows())
    answer = api.post(f"/api/files/{file_id}/split", json={"share": 0.3, "seed": 4})
    assert answer.status_code == 200, answer.text
    train, valid, summary = (answer.json()[name] for name in ("train", "valid", "summary"))
    assert (train["filename"], valid["filename"]) == ("claims.train.jsonl", "claims.valid.jsonl")
    assert (summary["num_train"], summary["num_valid"], summary["seed"]) == (21, 9, 4)
    assert {label["answer"]: label["num_valid"] for label in summary["labels"]} == dict.fromkeys(COLOURS, 3)
    parts = content_of(api, train["id"]), content_of(api, valid["id"])
    assert (len(parts[0]), len(parts[1])) == (21, 9)
    assert sorted(parts[0] + parts[1]) == sorted(content_of(api, file_id))
    assert api.get(f"/api/files/{file_id}").json()["children"] == [train["id"], valid["id"]]
    assert train["lineage"]["other_side"] == valid["id"]
    again = api.post(f"/api/files/{file_id}/split", json={"share": 0.3, "seed": 4}).json()
    assert content_of(api, again["valid"]["id"]) == parts[1]


def test_a_derived_file_expires_with_its_parent(api: TestClient) -> None:
    form = {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    parent = api.post("/v1/files", data=form, files={"file": ("a.jsonl", jsonl(ROWS))}).json()
    made = api.post(f"/api/files/{parent['id']}/mend", json={"fixes": ["strip"]}).json()["file"]
    assert made["expires_at"] == parent["expires_at"]


def test_an_expired_file_is_404(api: TestClient) -> None:
    file_id = post(api, ROWS)
    with api.app.state.services.database.session() as session:
        FileRepo(session).get(file_id).expires_at = 1
    for path in ("", "/report", "/rows"):
        assert api.get(f"/api/files/{file_id}{path}").status_code == 404


def test_requests_at_once_share_one_check(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = api.app.state.services.data_tasks
    started: list[object] = []
    real_start = tasks._start
    monkeypatch.setattr(tasks, "_start", lambda task: started.append(task) or real_start(task))
    file_id, twin = post(api, ROWS), post(api, ROWS, name="other-name.jsonl")
    gate = threading.Barrier(8)

    def ask(number: int) -> str:
        gate.wait()
        return when_done(lambda: api.get(f"/api/files/{(file_id, twin)[number % 2]}/report")).json()["filename"]

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(ask, range(8)))
    assert names == ["claims.jsonl", "other-name.jsonl"] * 4
    assert len(started) == 1
    api.get(f"/api/files/{file_id}/report?refresh=true")
    when_done(lambda: api.get(f"/api/files/{file_id}/report"))
    assert len(started) == 2


def test_a_deleted_file_leaves_no_report(api: TestClient, settings: Settings) -> None:
    file_id, twin = post(api, ROWS), post(api, ROWS)
    when_done(lambda: api.get(f"/api/files/{file_id}/report"))
    reports = settings.home / "cache" / "reports"
    api.delete(f"/v1/files/{file_id}")
    assert api.get(f"/api/files/{file_id}/report").status_code == 404
    assert api.get(f"/api/files/{twin}/report").status_code == 200
    api.delete(f"/v1/files/{twin}")
    assert list(reports.iterdir()) == []


def test_a_file_deleted_during_its_check_leaves_nothing(api: TestClient, settings: Settings) -> None:
    file_id = post(api, good_rows(3000))
    assert api.get(f"/api/files/{file_id}/report").status_code == 202
    api.delete(f"/v1/files/{file_id}")
    assert api.get(f"/api/files/{file_id}/report").status_code == 404
    again = post(api, good_rows(3000))
    assert when_done(lambda: api.get(f"/api/files/{again}/report")).json()["num_rows"] == 3000
    api.delete(f"/v1/files/{again}")
    assert list((settings.home / "cache" / "reports").iterdir()) == []


def test_a_store_elsewhere_is_read_through_a_copy(
    api: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As S3 does, the store has no path to give."""
    monkeypatch.setattr(api.app.state.services.blobs, "path", lambda key: None)
    file_id = post(api, ROWS)
    assert len(api.get(f"/api/files/{file_id}/rows").json()["data"]) == 35
    made = api.post(f"/api/files/{file_id}/mend", json={"fixes": ["strip"]}).json()["file"]["id"]
    assert len(api.get(f"/api/files/{made}/rows").json()["data"]) == 35
    copies = settings.home / "cache" / "files"
    assert len(list(copies.iterdir())) == 2
    for each in (file_id, made):
        api.delete(f"/v1/files/{each}")
    assert list(copies.iterdir()) == []


def test_a_check_that_dies_is_told_and_begun_again_on_request(
    api: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = post(api, ROWS)
    tasks = api.app.state.services.data_tasks
    real_start = tasks._start

    def start_and_kill(task: object) -> object:
        child = real_start(task)
        child.kill()
        return child

    monkeypatch.setattr(tasks, "_start", start_and_kill)
    dead = when_done(lambda: api.get(f"/api/files/{file_id}/report"))
    assert (dead.status_code, dead.json()["error"]["code"]) == (503, "data_task_died")
    monkeypatch.undo()
    assert api.get(f"/api/files/{file_id}/report").status_code == 503
    assert api.get(f"/api/files/{file_id}/report?refresh=true").status_code == 202
    assert when_done(lambda: api.get(f"/api/files/{file_id}/report")).status_code == 200


def test_a_restart_keeps_reports_and_begins_interrupted_checks_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    key = ""
    with opened(settings) as api:
        key = api.headers["authorization"]
        done, interrupted, gone = post(api, ROWS), post(api, good_rows()), post(api, good_rows(20))
        report = when_done(lambda: api.get(f"/api/files/{done}/report")).json()
        when_done(lambda: api.get(f"/api/files/{gone}/report"))
        assert api.get(f"/api/files/{interrupted}/report").status_code == 202
        with api.app.state.services.database.session() as session:
            FileRepo(session).delete(gone)
    with opened(settings) as api:
        api.headers["authorization"] = key
        assert len(list((tmp_path / "cache" / "reports").iterdir())) == 2
        kept = api.get(f"/api/files/{done}/report")
        assert (kept.status_code, kept.json()) == (200, report)
        assert when_done(lambda: api.get(f"/api/files/{interrupted}/report")).status_code == 200


def test_a_file_that_is_no_text_is_a_finding(api: TestClient) -> None:
    file_id = post(api, ROWS)
    services = api.app.state.services
    services.blobs.path(file_id).write_bytes(b"\x1f\x8b\x08 compressed")
    with services.database.session() as session:
        FileRepo(session).get(file_id).sha256 = "0" * 64
    report = when_done(lambda: api.get(f"/api/files/{file_id}/report")).json()
    assert "compressed_file" in {group["rule"] for group in report["groups"]}
    answer = api.post(f"/api/files/{file_id}/mend", json={"fixes": ["strip"]})
    assert answer.status_code == 400
    assert "gzip" in answer.json()["error"]["message"]


def test_without_any_model_a_report_says_what_was_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed, and pip reaches nobody."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with opened(Settings(home=tmp_path)) as api:
        told = [
            chat(f"Where does river {n} end, {n * 7919}?", f"In sea {n}, past {n} " + "towns " * 9) for n in range(40)
        ]
        file_id = post(api, told)
        report = when_done(lambda: api.get(f"/api/files/{file_id}/report")).json()
        preview = api.get(f"/api/files/{file_id}/preview")
    assert (preview.status_code, preview.json()["error"]["code"]) == (503, "model_not_installed")
    assert report["tokens"] is None
    reasons = {skipped["rule"]: skipped["reason"] for skipped in report["skipped"]}
    assert "model" in reasons["over_context"]
    assert "embedding model" in reasons["unrelated_answer"]


def test_the_schema_of_a_report_is_in_the_document(shared_api: TestClient) -> None:
    paths = shared_api.app.openapi()["paths"]
    report = paths["/api/files/{file_id}/report"]["get"]["responses"]
    assert "groups" in report["200"]["content"]["application/json"]["schema"]["properties"]
    assert report["202"]["content"]["application/json"]["schema"]["$ref"].endswith("/CheckStatus")
    mend = paths["/api/files/{file_id}/mend"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert "num_dropped" in mend["properties"]["summary"]["properties"]
    assert "$defs" not in json.dumps(paths)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("claims.jsonl", "claims.mended.jsonl"),
        ("claims.mended.jsonl", "claims.mended-2.jsonl"),
        ("claims.mended-9.jsonl", "claims.mended-10.jsonl"),
        ("claims", "claims.mended"),
        ("x" * 255, "x" * 248 + ".mended"),
    ],
)
def test_names_of_derived_files(name: str, expected: str) -> None:
    assert derived_name(name, "mended") == expected

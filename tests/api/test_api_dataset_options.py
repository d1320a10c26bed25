"""/api/files: how prompts with completions are read, leaks into a validation file, the list of data sets, odd rows."""

import json
from typing import Any

import pytest
from dataset_calls import MODEL, ROWS, content_of, good_rows, jsonl, post, when_done
from open_api import opened, settings_in
from starlette.testclient import TestClient

from tunesmith.catalog.models import base_dir, find_base_model
from tunesmith.core.settings import Settings
from tunesmith.store.repos.files import FileRepo

COMPLETIONS = [{"prompt": f"Case {n * 7919}, house {n}:", "completion": ("red", "green")[n % 2]} for n in range(20)]


def rules_of(answer: Any) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {group["rule"] for group in answer.json()["groups"]}


def test_a_check_reads_completions_as_a_job_would(api: TestClient) -> None:
    file_id = post(api, COMPLETIONS)
    address = f"/api/files/{file_id}"
    refused = when_done(lambda: api.get(f"{address}/report"))
    assert refused.json()["num_bad_rows"] == 20
    taken = when_done(lambda: api.get(f"{address}/report?completions=chat"))
    assert (taken.json()["num_errors"], taken.json()["tokens"]["num_over_limit"]) == (0, 0)
    assert api.get(f"{address}/report").json()["num_bad_rows"] == 20, "both are kept"

    assert api.get(f"{address}/preview").status_code == 400
    shown = api.get(f"{address}/preview?completions=chat").json()
    assert shown["conversations"][0]["messages"][1] == {"role": "assistant", "content": "red"}

    rule = taken.json()["groups"][0]["rule"] if taken.json()["groups"] else "short_row"
    assert when_done(lambda: api.get(f"{address}/rows?completions=chat&rule={rule}")).status_code == 200
    body = {"fixes": ["drop_rows"], "completions": "chat"}
    kept = api.post(f"{address}/mend", json=body)
    assert kept.json()["error"]["code"] == "nothing_to_mend"


def test_raw_completions_are_refused_for_a_chat_model(shared_api: TestClient) -> None:
    file_id = post(shared_api, COMPLETIONS)
    for path in ("report", "findings", "preview", "rows"):
        answer = shared_api.get(f"/api/files/{file_id}/{path}?completions=plain")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "completions")
        assert "chat model" in answer.json()["error"]["message"]
    wrong = shared_api.get(f"/api/files/{file_id}/report?completions=essay")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "completions")


def test_a_model_that_continues_text_takes_completions_as_they_are(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    settings = settings_in(home)
    _install_text_model(settings)
    with opened(settings) as api:
        file_id = post(api, COMPLETIONS)
        shown = api.get(f"/api/files/{file_id}/preview?model=continues-text").json()
        report = when_done(lambda: api.get(f"/api/files/{file_id}/report?model=continues-text")).json()
    assert "".join(token["text"] for token in shown["sequences"][0]["tokens"]).startswith("Case 0, house 0:red")
    assert report["num_errors"] == 0


def _install_text_model(settings: Settings) -> None:
    """The built-in model under another name, as one that continues text."""
    base = find_base_model(settings, MODEL)
    assert base is not None
    models = settings.models_dir
    real = base_dir(settings, MODEL).resolve()
    models.unlink()
    for name in (MODEL, "continues-text"):
        folder = base_dir(settings, name)
        folder.mkdir(parents=True)
        for path in real.iterdir():
            (folder / path.name).symlink_to(path)
    manifest = folder / "tunesmith.json"
    fields = json.loads(manifest.read_bytes())
    manifest.unlink()
    manifest.write_text(json.dumps({**fields, "id": "continues-text", "aliases": [], "completions": True}))


def test_leaks_into_a_validation_file_are_found_and_dropped(api: TestClient) -> None:
    rows = good_rows()
    file_id, valid = post(api, rows), post(api, [*rows[:3], *good_rows(40)[30:]], name="valid.jsonl")
    address = f"/api/files/{file_id}"
    alone = when_done(lambda: api.get(f"{address}/report"))
    leaky = when_done(lambda: api.get(f"{address}/report?validation={valid}"))
    assert "validation_overlap" not in rules_of(alone)
    assert "validation_overlap" in rules_of(leaky)
    shown = api.get(f"{address}/rows?validation={valid}&rule=validation_overlap").json()
    assert [row["line"] for row in shown["data"]] == [1, 2, 3]
    body = {"fixes": ["drop_rows"], "rules": ["validation_overlap"], "validation": valid}
    made = api.post(f"{address}/mend", json=body).json()["file"]
    assert content_of(api, made["id"]) == [json.dumps(row).encode() for row in rows[3:]]
    assert made["lineage"]["validation"] == valid

    missing = api.get(f"{address}/report?validation=file-nobody")
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "validation")
    reports = home_of(api) / "cache" / "reports"
    assert len(list(reports.glob("*/*-*-?"))) == 1
    api.delete(f"/v1/files/{valid}")
    assert not list(reports.glob("*/*-*-?")), "it tells of a deleted file"
    assert api.get(f"{address}/report").status_code == 200


def home_of(api: TestClient) -> Any:
    return api.app.state.settings.home  # type: ignore[attr-defined]


def test_the_list_of_data_sets(api: TestClient) -> None:
    post(api, [b"%PDF-1.7"], purpose="user_data", name="a.pdf")
    first = post(api, ROWS)
    second = api.post(f"/api/files/{first}/mend", json={"fixes": ["strip"]}).json()["file"]["id"]
    expired = post(api, good_rows())
    with api.app.state.services.database.session() as session:  # type: ignore[attr-defined]
        FileRepo(session).get(expired).expires_at = 1
    listed = api.get("/api/files").json()
    assert [file["id"] for file in listed["data"]] == [second, first]
    assert [file["report"] for file in listed["data"]] == [None, None]
    assert listed["data"][0]["lineage"]["action"] == "mend"

    report = when_done(lambda: api.get(f"/api/files/{first}/report")).json()
    page = api.get("/api/files?limit=1").json()
    assert (page["has_more"], page["data"][0]["report"]) == (True, None)
    (file,) = api.get(f"/api/files?limit=1&after={second}").json()["data"]
    counts = ("kind", "verdict", "num_rows", "num_bad_rows", "num_errors", "num_warnings", "num_hints")
    assert file["report"] == {name: report[name] for name in counts}
    assert [file["report"] for file in api.get("/api/files?completions=chat").json()["data"]] == [None, None]
    assert api.get("/api/files?model=nobody").status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "after=file-nobody", "completions=essay"])
def test_wrong_pages_are_refused(shared_api: TestClient, query: str) -> None:
    answer = shared_api.get(f"/api/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_only_a_key_lists_data_sets(shared_api: TestClient) -> None:
    assert shared_api.get("/api/files", headers={"authorization": "Bearer sk-wrong"}).status_code == 401


ODD = [
    b'{"messages": "\xff\xfe"}',
    b'{"n": 1e999}',
    b'{"n": [-1e400]}',
    b'{"n": ' + b"9" * 400 + b"}",
    b'{"n": ' + b"9" * 5000 + b"}",
    b'{"n": NaN}',
    b"[1]",
    b'{"n": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
]
GOOD = [b'{"n": 1e308, "m": ' + b"1" * 309 + b"}", b'{"n": "' + b"9" * 400 + b'"}']


def test_whatever_a_row_holds_the_answer_is_json(api: TestClient) -> None:
    good = json.dumps(good_rows(1)[0]).encode()
    file_id = post(api, [good, *ODD, *GOOD])
    answer = api.get(f"/api/files/{file_id}/rows")
    document = json.loads(answer.content.decode("utf-8"), parse_constant=_refuse)
    assert ["row" in row for row in document["data"]] == [True, *[False] * len(ODD), True, True]
    assert document["data"][2]["raw"] == '{"n": 1e999}'
    assert b"1e999" in jsonl(ODD)


def _refuse(constant: str) -> None:
    raise AssertionError(constant)


def test_blank_lines_with_a_finding_are_rows_without_text(api: TestClient) -> None:
    file_id = post(api, [*good_rows(12), b"", *good_rows(14)[12:]])
    (row,) = when_done(lambda: api.get(f"/api/files/{file_id}/rows?rule=blank_line")).json()["data"]
    assert (row["line"], row["raw"], row["num_bytes"]) == (13, "", 0)

"""The OpenAPI document, from which the Studio's types are made, says what the server answers."""

import json
import re
from typing import Any

import jsonschema
import pytest
from dataset_calls import ROWS, good_rows, post, when_done
from starlette.testclient import TestClient

OPEN = {"/health", "/ready"}
BUSY = {("post", "/api/files/{file_id}/mend"), ("post", "/api/files/{file_id}/split")}


@pytest.fixture(scope="module")
def document(shared_api: TestClient) -> Any:
    return json.loads(shared_api.get("/openapi.json").content)


def calls(document: Any) -> dict[tuple[str, str], Any]:
    return {(method, path): call for path, item in document["paths"].items() for method, call in item.items()}


def test_errors_are_openais_and_nobody_gets_a_422(document: Any) -> None:
    assert "HTTPValidationError" not in json.dumps(document)
    for (method, path), call in calls(document).items():
        responses = call["responses"]
        assert "422" not in responses
        if path in OPEN:
            continue
        assert {"400", "401", "404", "default"} <= set(responses), (method, path)
        for status in {"400", "401", "403", "404", "409", "413", "429", "503", "default"} & set(responses):
            (schema,) = [kind["schema"] for kind in responses[status]["content"].values()]
            assert schema == {"$ref": "#/components/schemas/ErrorReply"}, (method, path, status)
    for call in BUSY:
        assert {"429", "503"} <= set(calls(document)[call]["responses"])


def test_every_reference_leads_somewhere(document: Any) -> None:
    text = json.dumps(document)
    assert "$defs" not in text
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in document["components"]["schemas"]


def test_answers_fit_their_schemas(document: Any, shared_api: TestClient) -> None:
    file_id = post(shared_api, ROWS)
    address = f"/api/files/{file_id}"
    mended = shared_api.post(f"{address}/mend", json={"fixes": ["strip"]})
    parts = shared_api.post(f"/api/files/{post(shared_api, good_rows())}/split", json={})
    answers = {
        ("get", "/api/files/{file_id}/report"): when_done(lambda: shared_api.get(f"{address}/report")),
        ("get", "/api/files/{file_id}/rows"): shared_api.get(f"{address}/rows"),
        ("get", "/api/files/{file_id}/preview"): shared_api.get(f"{address}/preview"),
        ("get", "/api/files/{file_id}"): shared_api.get(f"/api/files/{parts.json()['valid']['id']}"),
        ("get", "/api/files"): shared_api.get("/api/files?limit=5"),
        ("get", "/api/prices"): shared_api.get("/api/prices"),
        ("post", "/api/files/{file_id}/mend"): mended,
        ("post", "/api/files/{file_id}/split"): parts,
    }
    for call, answer in answers.items():
        assert answer.status_code == 200, answer.text
        schema = calls(document)[call]["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema.get("properties") or "$ref" in schema, call
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
    wrong = shared_api.get("/api/files?limit=0").json()
    jsonschema.validate(
        wrong, {**document["components"]["schemas"]["ErrorReply"], "components": document["components"]}
    )

    ndjson = calls(document)["get", "/api/files/{file_id}/findings"]["responses"]["200"]["content"]
    for line in shared_api.get(f"{address}/findings").text.splitlines():
        jsonschema.validate(json.loads(line), ndjson["application/x-ndjson"]["schema"])


def test_new_files_and_lineages_have_types(document: Any) -> None:
    schemas = document["components"]["schemas"]
    mend = calls(document)["post", "/api/files/{file_id}/mend"]["responses"]["200"]["content"]["application/json"]
    assert mend["schema"]["properties"]["file"]["$ref"] == "#/components/schemas/DatasetFile"
    lineage = json.dumps(schemas["DatasetFile"]["properties"]["lineage"])
    assert sorted(re.findall(r'"action": {"enum": \["(\w+)"\]}', lineage)) == ["generate", "mend", "split"]

"""OpenAI's own OpenAPI document as a judge: every JSON response is checked against the schema of its operation."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DOCUMENT = Path(__file__).parents[2].parent / "shared" / "reference" / "openai" / "openapi.yaml"
BASE = "urn:openai"


@cache
def document() -> dict[str, Any]:
    """The document; skips the test where the reference folder is not beside the repository."""
    if not DOCUMENT.exists():
        pytest.skip("OpenAI's openapi.yaml is not there: ../shared/reference/openai/openapi.yaml beside the repository")
    raw = yaml.load(DOCUMENT.read_bytes(), Loader=yaml.CSafeLoader)
    return {"paths": raw["paths"], "components": {"schemas": _modern(raw["components"]["schemas"])}}


def _modern(node: Any) -> Any:
    """The document still has words of OpenAPI 3.0 in places, which JSON Schema 2020-12 knows not or otherwise:
    ``nullable: true``, and ``exclusiveMinimum: true`` beside a minimum."""
    if isinstance(node, list):
        return [_modern(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _modern(value) for key, value in node.items() if key != "nullable"}
    for side in ("inimum", "aximum"):
        if plain.get(f"exclusiveM{side}") is True:
            plain[f"exclusiveM{side}"] = plain.pop(f"m{side}")
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain


@cache
def _registry() -> Registry[Any]:
    return Registry().with_resource(BASE, Resource(contents=document(), specification=DRAFT202012))


def check(instance: object, schema_name: str) -> None:
    """Assert that ``instance`` is what the named schema says."""
    _check(instance, {"$ref": f"{BASE}#/components/schemas/{schema_name}"}, schema_name)


def _check(instance: object, schema: dict[str, Any], what: str) -> None:
    validator = Draft202012Validator(schema, registry=_registry())
    problems = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(instance)]
    assert not problems, f"{what}: {problems} in {json.dumps(instance)[:1000]}"


@cache
def _templates() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path) for path in document()["paths"]]


def response_schema(method: str, path: str) -> dict[str, Any] | None:
    """The schema of the operation's 200 answer in JSON, for a path without ``/v1``; None if there is none."""
    for pattern, template in _templates():
        operation = document()["paths"][template].get(method.lower())
        if operation is not None and pattern.fullmatch(path):
            content = operation["responses"].get("200", {}).get("content", {})
            return content.get("application/json", {}).get("schema")
    raise AssertionError(f"OpenAI has no operation {method} {path}")


def check_response(response: httpx.Response) -> None:
    """Assert that a live response is what OpenAI's document says: its body, and the headers that every response has."""
    assert re.fullmatch(r"req_[A-Za-z0-9]{32}", response.headers["x-request-id"])
    assert int(response.headers["openai-processing-ms"]) >= 0
    if response.headers.get("content-type") != "application/json":
        return
    if response.status_code >= 400:
        check(response.json(), "ErrorResponse")
        return
    path = response.request.url.raw_path.decode().partition("?")[0].removeprefix("/v1")
    schema = response_schema(response.request.method, path)
    if schema is not None:
        _check(response.json(), {"$ref": f"{BASE}{schema['$ref']}"}, f"{response.request.method} {path}")


def _on_response(response: httpx.Response) -> None:
    if response.headers.get("content-type") == "application/json":
        response.read()
    check_response(response)


async def _on_async_response(response: httpx.Response) -> None:
    if response.headers.get("content-type") == "application/json":
        await response.aread()
    check_response(response)


def checking_client() -> httpx.Client:
    """An HTTP client for the SDK that fails the test at the first response that is not as documented."""
    return httpx.Client(event_hooks={"response": [_on_response]}, timeout=120)


def checking_async_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(event_hooks={"response": [_on_async_response]}, timeout=120)

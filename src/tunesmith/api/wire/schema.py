"""JSON schemas of our own structs for the OpenAPI document, from which the Studio's types are made."""

from typing import Any

import msgspec

_PREFIX = "#/$defs/"


def json_schema(kind: type) -> dict[str, Any]:
    """The schema of a struct with the schemas that it names put in their places. Not for recursive types."""
    (schema,), parts = msgspec.json.schema_components([kind], ref_template=_PREFIX + "{name}")
    whole = _resolved(schema, parts)
    assert isinstance(whole, dict)
    return whole


def json_response(kind: type, description: str) -> dict[str, Any]:
    """One entry of a route's ``responses``."""
    return {"description": description, "content": {"application/json": {"schema": json_schema(kind)}}}


def _resolved(schema: Any, parts: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_resolved(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        return _resolved(parts[schema["$ref"].removeprefix(_PREFIX)], parts)
    return {key: _resolved(value, parts) for key, value in schema.items()}

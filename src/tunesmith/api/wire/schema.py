"""JSON schemas of our own structs for the OpenAPI document, from which the Studio's types are made."""

from typing import Any

import msgspec
from pydantic import BaseModel

_PREFIX = "#/$defs/"


def json_schema(kind: Any) -> dict[str, Any]:
    """The schema of a struct with the schemas that it names put in their places. Not for recursive types."""
    (schema,), parts = msgspec.json.schema_components([kind], ref_template=_PREFIX + "{name}")
    whole = _resolved(schema, parts)
    assert isinstance(whole, dict)
    return whole


def ref_to(kind: type[BaseModel]) -> msgspec.Meta:
    """For a field that holds such an object: another call of the document answers with it."""
    return msgspec.Meta(extra_json_schema={"$ref": f"#/components/schemas/{kind.__name__}"})


def json_response(kind: type, description: str, media_type: str = "application/json") -> dict[str, Any]:
    """One entry of a route's ``responses``."""
    return {"description": description, "content": {media_type: {"schema": json_schema(kind)}}}


def _resolved(schema: Any, parts: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_resolved(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if str(schema.get("$ref", "")).startswith(_PREFIX):
        return _resolved(parts[schema["$ref"].removeprefix(_PREFIX)], parts)
    # The discriminator names schemas by their places, which are gone.
    return {key: _resolved(value, parts) for key, value in schema.items() if key != "discriminator"}

"""pydantic's complaints in OpenAI's words: a message, the name of the field, a stable code."""

from collections.abc import Mapping
from typing import Any

Explanation = tuple[str, str | None, str | None]
"""message, param, code"""

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "a boolean",
    "bool_parsing": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_BOUND = {
    "greater_than_equal": ("below minimum value", ">=", "ge", "below_min_value"),
    "greater_than": ("below minimum value", ">", "gt", "below_min_value"),
    "less_than_equal": ("above maximum value", "<=", "le", "above_max_value"),
    "less_than": ("above maximum value", "<", "lt", "above_max_value"),
}
_LENGTH = {
    "string_too_short": ("string too short", "min_length", "at least", "string_below_min_length"),
    "string_too_long": ("string too long", "max_length", "at most", "string_above_max_length"),
    "too_short": ("too few items", "min_length", "at least", "array_below_min_length"),
    "too_long": ("too many items", "max_length", "at most", "array_above_max_length"),
}


def explain(complaint: Mapping[str, Any]) -> Explanation:
    """Turn one entry of ``ValidationError.errors()`` into (message, param, code)."""
    kind, param = complaint["type"], field_name(complaint["loc"])
    if kind in _EXPECTED:
        return _wrong_type(kind, param, complaint["input"])
    if kind in _BOUND:
        return _out_of_bounds(kind, param, complaint["input"], complaint["ctx"])
    if kind in _LENGTH:
        return _wrong_length(kind, param, complaint["ctx"])
    return _wrong_otherwise(kind, param, complaint)


def field_name(location: tuple[int | str, ...]) -> str | None:
    """``('body', 'messages', 0, 'role')`` -> ``messages[0].role``; type choices of a union are left out."""
    name = ""
    for part in location:
        if part in ("body", "query", "path", "header") and not name:
            continue
        if isinstance(part, int):
            name += f"[{part}]"
        elif not _is_union_choice(part):
            name += f".{part}" if name else part
    return name or None


def _is_union_choice(part: str) -> bool:
    """pydantic puts the tried member of a union into the location: ``constrained-int``, ``literal['auto']``."""
    return part in ("int", "float", "str", "bool") or part.startswith("constrained-") or "[" in part


def _wrong_otherwise(kind: str, param: str | None, complaint: Mapping[str, Any]) -> Explanation:
    if kind == "json_invalid":
        reason = complaint["ctx"]["error"]
        return f"We could not parse the JSON body of your request: {reason}.", None, None
    if kind == "missing":
        return _missing(param)
    if kind == "extra_forbidden":
        return f"Unrecognized request argument supplied: {param}", param, "unknown_parameter"
    if kind == "literal_error":
        supported = complaint["ctx"]["expected"]
        return f"Invalid value: {complaint['input']!r}. Supported values are: {supported}.", param, "invalid_value"
    return f"Invalid value for '{param}': {complaint['msg']}.", param, "invalid_value"


def _missing(param: str | None) -> Explanation:
    if param is None:
        return "We could not parse the JSON body of your request: it is empty.", None, None
    return f"Missing required parameter: '{param}'.", param, "missing_required_parameter"


def _wrong_type(kind: str, param: str | None, value: object) -> Explanation:
    if param is None:
        return "The body of the request must be one JSON object, sent as application/json.", None, "invalid_type"
    message = f"Invalid type for '{param}': expected {_EXPECTED[kind]}, but got {_json_name(value)} instead."
    return message, param, "invalid_type"


def _out_of_bounds(kind: str, param: str | None, value: object, context: Mapping[str, Any]) -> Explanation:
    side, sign, key, code = _BOUND[kind]
    number = "decimal" if "." in str(value) else "integer"
    message = f"Invalid '{param}': {number} {side}. Expected a value {sign} {context[key]}, but got {value} instead."
    return message, param, f"{number}_{code}"


def _wrong_length(kind: str, param: str | None, context: Mapping[str, Any]) -> Explanation:
    what, key, sign, code = _LENGTH[kind]
    return f"Invalid '{param}': {what}. Expected {sign} {context[key]}.", param, code


def _json_name(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", list: "an array"}
    return names.get(type(value), "null" if value is None else "an object")

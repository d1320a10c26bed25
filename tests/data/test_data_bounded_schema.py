"""Schemas of strangers: what they cost has a bound, and its end is said."""

import json
from typing import Any

import pytest

from tunesmith.data.bounded_schema import Budget, TooInvolved, apply, make_validator
from tunesmith.data.findings import Finding
from tunesmith.data.formats import read_row
from tunesmith.data.notes import MAX_ROW_FINDINGS


def findings_of(schema: dict[str, Any], arguments: Any) -> list[Finding]:
    """Of a row whose answer calls a function three times."""
    function = {"name": "f", "arguments": json.dumps(arguments)}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "tool_calls": [{"id": f"c{n}", "type": "function", "function": function} for n in range(3)],
        },
    ]
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    return read_row(json.dumps({"messages": messages, "tools": [tool]}).encode(), 1, "chat")[1]


def doubled(name: str, num_levels: int, leaf: str = "object") -> dict[str, Any]:
    """Each level asks for the next one twice."""
    levels: dict[str, Any] = {f"d{n}": {name: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(num_levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**levels, f"d{num_levels}": {"type": leaf}}}


def doubled_inside(num_levels: int) -> dict[str, Any]:
    """As ``doubled``, one level of the arguments for each."""
    inner: dict[str, Any] = {"$ref": "#/$defs/a"}
    return {**inner, "$defs": {"a": {"allOf": [{"properties": {"x": inner}}] * 2}}}


def nested(num_levels: int) -> dict[str, Any]:
    return {"x": nested(num_levels - 1)} if num_levels else {}


INVOLVED: list[tuple[dict[str, Any], Any]] = [
    (doubled("allOf", 60), {}),
    (doubled("anyOf", 60, "string"), {}),
    (doubled("oneOf", 60), {}),
    (doubled_inside(60), nested(60)),
    ({"properties": {"n": {"items": {"pattern": "(a|aa)+$"}}}}, {"n": ["a" * 20 + "!"] * 100_000}),
    ({"$schema": "http://json-schema.org/draft-07/schema#", **doubled("allOf", 60)}, {}),
    ({"allOf": [{"$schema": "http://json-schema.org/draft-07/schema#", **doubled("allOf", 60)}]}, {}),
    ({"items": {"enum": list(range(20_000))}}, [20_000] * 20_000),
    ({"properties": {"n": {"items": {"required": [f"k{n}" for n in range(3_000)]}}}}, {"n": [{}] * 10_000}),
    ({"type": [{"a": n} for n in range(50_000)]}, {}),  # the check of schemas themselves has them all differ
]


@pytest.mark.parametrize(("schema", "arguments"), INVOLVED)
def test_a_schema_that_would_take_for_ever_is_not_applied_and_said_so(schema: dict[str, Any], arguments: Any) -> None:
    findings = findings_of(schema, arguments)
    said = [finding.what for finding in findings if finding.rule == "invalid_tool_schema"]
    assert any("too involved" in what for what in said) or len(findings) == MAX_ROW_FINDINGS


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/minProperties", "minProperties": 0},
        {"$ref": "#/const", "const": [1]},
        {"$ref": "#/x", "x": {"minProperties": "many"}},
        {"$ref": "#/x", "x": {"type": "thing"}},
        {"$ref": "#/x", "x": {"required": 7}},
        {"$ref": "#/x", "x": {"allOf": {"a": 1}}},
        {"$ref": "http://["},
        {"$id": "http://[", "$ref": "#a"},
        {"$ref": "#a", "$defs": {"a": {"$schema": "foo:bar"}}},
        {"$ref": "#"},
        {"$ref": "https://example.org/schema.json"},
    ],
)
def test_a_reference_to_what_is_no_schema_is_said(schema: dict[str, Any]) -> None:
    assert {finding.rule for finding in findings_of(schema, {"a": 1})} == {"invalid_tool_schema"}


@pytest.mark.parametrize("keyword", ["unevaluatedProperties", "unevaluatedItems"])
def test_a_schema_that_is_walked_without_counting_is_not_applied(keyword: str) -> None:
    levels: dict[str, Any] = {
        f"d{n}": {"dependentSchemas": {key: {"$ref": f"#/$defs/d{n + 1}"} for key in "ab"}} for n in range(60)
    }
    schema = {keyword: False, "$ref": "#/$defs/d0", "$defs": {**levels, "d60": {}}}
    assert make_validator(schema) is None
    assert findings_of(schema, {"a": 1, "b": 2}) == []


def test_an_involved_schema_leaves_nothing_for_the_calls_after_it() -> None:
    """The work is bounded for the row, not for each of its calls."""
    taken: list[int] = []

    class Counted(Budget):
        def take(self, num_steps: int) -> None:
            super().take(num_steps)
            taken.append(num_steps)

    validator = make_validator(doubled("allOf", 60))
    assert validator is not None
    budget = Counted()
    for _ in range(100):
        budget.add(2)
        with pytest.raises(TooInvolved):
            apply(validator, {}, budget, print)
    assert sum(taken) < 20_000


@pytest.mark.parametrize(
    ("items", "is_unique"),
    [([1, 2, "1"], True), ([1, 1], False), ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False), ([True, 1, 0, False], True)],
)
def test_items_that_must_differ(items: list[Any], is_unique: bool) -> None:
    validator = make_validator({"uniqueItems": True})
    assert validator is not None
    errors: list[object] = []
    apply(validator, items, Budget(), errors.append)
    assert (not errors) == is_unique
    many = [{"a": n} for n in range(20_000)]
    budget = Budget()
    budget.add(len(json.dumps(many)))
    apply(validator, many, budget, errors.append)
    assert (not errors) == is_unique

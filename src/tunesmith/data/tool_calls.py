"""Tools, calls and results of a conversation: each call answered, each answer asked for, arguments as declared.

A tool's schema comes from a stranger: ``bounded_schema`` applies it.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
import msgspec
from jsonschema import Draft202012Validator

from tunesmith.data.bounded_schema import Budget, TooInvolved, apply, make_validator
from tunesmith.data.json_line import TOO_DEEP, is_deep
from tunesmith.data.notes import RowNotes, kind_name, member, quoted
from tunesmith.data.rows import FunctionCall, Message

MAX_TOOLS = 128
_MAX_CACHED_SETS = 64
_MAX_CACHED_BYTES = 2**16
"""Of one row's tools as JSON."""
_CALL_BYTES = 100
"""About what a call takes in a row beside its arguments."""

Tools = list[dict[str, Any]] | None
Place = tuple[Message, str]
"""A message and its JSON path."""


class Declared(msgspec.Struct, frozen=True):
    """The tools of a row by name, ready to check arguments, and what is wrong with them: (rule, what, path)."""

    validators: dict[str, Draft202012Validator | None]
    faults: list[tuple[str, str, str]]


def note_tools(
    places: Sequence[Place], tools: Tools, functions: Tools, parallel: bool | None, base: str, notes: RowNotes
) -> None:
    """All rules about tools in one conversation. ``base`` is the path of the object that holds ``tools``."""
    _note_results(places, notes)
    declared = _declared(tools, functions)
    for rule, what, path in declared.faults:
        notes.add(rule, what, base + path)
    budget = Budget()
    for message, path in places:
        if parallel is False and len(message.tool_calls or ()) > 1:
            what = f"{len(message.tool_calls or ())} calls in one message, but parallel_tool_calls is false."
            notes.add("parallel_calls_off", what, f"{path}.tool_calls")
        for call, where in _calls(message, path):
            _note_call(call, where, declared if tools or functions else None, budget, notes)


def _calls(message: Message, path: str) -> Iterator[tuple[FunctionCall, str]]:
    for index, call in enumerate(message.tool_calls or ()):
        yield call.function, f"{path}.tool_calls[{index}].function"
    if message.function_call is not None:
        yield message.function_call, f"{path}.function_call"


def _note_results(places: Sequence[Place], notes: RowNotes) -> None:
    """Match ``tool_call_id`` both ways. The calls of the last message need no result: they are the answer."""
    waiting: dict[str, str] = {}
    for message, path in places:
        if message.role == "tool":
            _take_result(message, path, waiting, notes)
            continue
        for id, where in waiting.items():
            notes.add("unanswered_tool_call", f"The call {quoted(id)} has no tool message with its result.", where)
        waiting = {}
        for index, call in enumerate(message.tool_calls or ()):
            where = f"{path}.tool_calls[{index}].id"
            if call.id in waiting:
                notes.add("duplicate_tool_call_id", f"Two calls of one message have the id {quoted(call.id)}.", where)
            waiting[call.id] = where


def _take_result(message: Message, path: str, waiting: dict[str, str], notes: RowNotes) -> None:
    id = message.tool_call_id
    if id is None:
        notes.add("missing_tool_call_id", "The tool message does not say which call it answers.", path)
    elif waiting.pop(id, None) is None:
        what = f"The id {quoted(id)} is not that of a waiting call in the assistant message before."
        notes.add("unknown_tool_call_id", what, f"{path}.tool_call_id")


def _note_call(call: FunctionCall, path: str, declared: Declared | None, budget: Budget, notes: RowNotes) -> None:
    where = f"{path}.arguments"
    try:
        arguments = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, RecursionError) as bad:
        notes.add("tool_arguments_not_json", f"The arguments are not JSON: {bad}.", where)
        return
    if not isinstance(arguments, dict):
        notes.add("tool_arguments_not_json", "The arguments are JSON but not an object.", where)
    if declared is None:
        return
    if call.name not in declared.validators:
        notes.add("undeclared_tool", f"The function {quoted(call.name)} is not among the row's tools.", f"{path}.name")
        return
    validator = declared.validators[call.name]
    if validator is not None:
        budget.add(len(call.arguments) + _CALL_BYTES)
        try:
            apply(validator, arguments, budget, lambda e: notes.add("tool_arguments_mismatch", _mismatch(e), where))
        except TooInvolved:
            what = "The schema is too involved, or refers to what is no schema: these arguments are not checked."
            notes.add("invalid_tool_schema", what, where)


def _mismatch(error: jsonschema.ValidationError) -> str:
    place = f" at {quoted('.'.join(map(str, error.absolute_path)))}" if error.absolute_path else ""
    match error.validator, error.validator_value:
        case "required", list(names):
            missing = [name for name in names if isinstance(error.instance, dict) and name not in error.instance]
            return f"The arguments lack {quoted(missing)}{place}, which the schema requires."
        case "additionalProperties", _:
            return f"The arguments have a key that the schema does not know{place}."
        case rule, value:
            found = kind_name(error.instance)  # not its value, which may be personal
            return f"The arguments do not match the schema{place}: {rule} {quoted(value)}, found {found}."


def _declared(tools: Tools, functions: Tools) -> Declared:
    """Rows of a file mostly declare the same tools: their validators are made once."""
    encoded = msgspec.json.encode((tools, functions))
    return _cached(encoded) if len(encoded) <= _MAX_CACHED_BYTES else _declare_all(tools, functions)


@functools.lru_cache(maxsize=_MAX_CACHED_SETS)
def _cached(encoded: bytes) -> Declared:
    return _declare_all(*msgspec.json.decode(encoded))


def _declare_all(tools: Tools, functions: Tools) -> Declared:
    made = Declared({}, [])
    for key, declarations in (("tools", tools), ("functions", functions)):
        if is_deep(declarations):
            made.faults.append(("deep_nesting", TOO_DEEP, f".{key}"))
            continue
        if declarations is not None and len(declarations) > MAX_TOOLS:
            what = f"{len(declarations):,} {key}; the most is {MAX_TOOLS}."
            made.faults.append(("too_many_tools", what, f".{key}"))
        for index, tool in enumerate((declarations or [])[: MAX_TOOLS + 1]):
            _declare(tool, f".{key}[{index}]", key == "tools", made)
    return made


def _declare(tool: dict[str, Any], path: str, is_wrapped: bool, made: Declared) -> None:
    if is_wrapped:
        function, path = tool.get("function"), f"{path}.function"
    else:
        function = tool
    if not isinstance(function, dict) or (is_wrapped and tool.get("type") != "function"):
        made.faults.append(("invalid_tool", 'A tool is {"type": "function", "function": {...}}.', path))
        return
    name = function.get("name")
    if not isinstance(name, str) or not name:
        made.faults.append(("invalid_tool", "The function has no name.", f"{path}.name"))
        return
    if name in made.validators:
        made.faults.append(("invalid_tool", f"Two tools have the name {quoted(name)}.", f"{path}.name"))
    made.validators[name] = _validator(function.get("parameters"), f"{path}.parameters", made)


def _validator(schema: object, path: str, made: Declared) -> Draft202012Validator | None:
    if schema is None:
        return None
    try:
        return make_validator(schema)
    except jsonschema.SchemaError as bad:
        where = functools.reduce(member, map(str, bad.absolute_path), path)
        made.faults.append(("invalid_tool_schema", f"The parameters are no JSON schema: {quoted(bad.message)}.", where))
    except TooInvolved:
        made.faults.append(
            ("invalid_tool_schema", "The parameters are too involved, or too deep, to be checked.", path)
        )
    return None

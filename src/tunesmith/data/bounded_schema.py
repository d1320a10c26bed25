"""JSON schemas of strangers, applied with a bound on the work.

A schema of a few lines can ask for more than a computer does in a year: subschemas that refer twice to the next one, a
list whose items must all differ, a pattern that backtracks. Every keyword that is applied takes from a budget, and its
end is an answer of its own: ``TooInvolved``. Nothing is fetched for a ``$ref``.

Not applied: schemas with ``patternProperties``, which jsonschema matches without a limit of time, and with
``unevaluatedProperties`` or ``unevaluatedItems``, for which it walks the schema without asking for a keyword.
"""

import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

import attrs
import jsonschema
import msgspec
import referencing
import referencing.exceptions
import regex
from jsonschema import Draft202012Validator

_BASE_STEPS = 10_000
_STEPS_PER_BYTE = 4
_MAX_STEPS = 200_000
_STEP_S = 1e-5
"""About what one keyword takes."""
_MEMBERS_PER_STEP = 16
_MESSAGE_CHARS_PER_STEP = 256
_PATTERN_TIMEOUT_S = 0.05
_NOT_APPLIED = (b'"patternProperties"', b'"unevaluatedProperties"', b'"unevaluatedItems"')


_NO_SCHEMA = (
    *(RecursionError, TypeError, AttributeError, ValueError, LookupError, ArithmeticError, regex.error),
    *(referencing.exceptions.Unresolvable, referencing.exceptions.CannotDetermineSpecification),
    jsonschema.exceptions.UnknownType,
)
"""What jsonschema raises where a ``$ref`` leads nowhere, in a circle, or to what was never judged as a schema."""


class TooInvolved(Exception):
    """The budget is spent, or a reference leads to no schema: nothing is known of the value."""


class Budget:
    """The steps that a row's schemas may take together: some for the row, more for what it says, never more than
    ``_MAX_STEPS``."""

    def __init__(self) -> None:
        self._num_left = _BASE_STEPS
        self._num_to_give = _MAX_STEPS - _BASE_STEPS

    def add(self, num_bytes: int) -> None:
        given = min(_STEPS_PER_BYTE * num_bytes, self._num_to_give)
        self._num_to_give -= given
        self._num_left += given

    def take(self, num_steps: int) -> None:
        """Raises TooInvolved when there are none left."""
        self._num_left -= num_steps
        if self._num_left < 0:
            self._num_left = 0
            raise TooInvolved


_budget: ContextVar[Budget] = ContextVar("budget of the schemas of a row")
_Check = Callable[[Any, Any, Any, Any], Iterator[jsonschema.ValidationError] | None]


def make_validator(schema: object) -> Draft202012Validator | None:
    """A validator for ``apply``; None for a schema that is not applied.

    Raises jsonschema.SchemaError for what is no schema, TooInvolved for one that cannot be judged.
    """
    if not isinstance(schema, dict):
        raise jsonschema.SchemaError("it is not an object")
    encoded = msgspec.json.encode(schema)
    budget = Budget()
    budget.add(len(encoded))
    apply(_META, schema, budget, _refuse)
    if any(keyword in encoded for keyword in _NOT_APPLIED):
        return None
    try:
        return _Validator(schema, registry=referencing.Registry())
    except _NO_SCHEMA as bad:
        raise TooInvolved from bad


def apply(
    validator: Draft202012Validator,
    value: object,
    budget: Budget,
    tell: Callable[[jsonschema.ValidationError], None],
) -> None:
    """Tell where ``value`` does not match the schema. Raises TooInvolved at the end of the budget."""
    token = _budget.set(budget)
    try:
        for error in validator.iter_errors(value):
            budget.take(_size(error.validator_value))  # what is said of it may show all of it
            tell(error)
    except _NO_SCHEMA as bad:
        raise TooInvolved from bad
    finally:
        _budget.reset(token)


def _refuse(error: jsonschema.ValidationError) -> NoReturn:
    raise jsonschema.SchemaError.create_from(error)


def _counted(keyword: str, check: _Check) -> _Check:
    is_compared = keyword in ("enum", "const")

    def count(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
        budget = _budget.get()
        budget.take(1 + (_size(value) + _size(instance)) // _MEMBERS_PER_STEP)
        if is_compared and isinstance(instance, list | dict):
            budget.take(len(msgspec.json.encode(value)) // _MEMBERS_PER_STEP)
        for error in check(validator, value, instance, schema) or ():
            budget.take(len(error.message) // _MESSAGE_CHARS_PER_STEP)  # it may hold the whole value
            yield error

    return count


def _size(value: object) -> int:
    return len(value) if isinstance(value, list | dict | str) else 0


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    """``pattern``, its time counted as steps."""
    if not isinstance(instance, str):
        return
    began_s = time.perf_counter()
    try:
        is_found = regex.search(pattern, instance, timeout=_PATTERN_TIMEOUT_S)
    except regex.error:
        return
    except TimeoutError as late:
        raise TooInvolved from late
    _budget.get().take(int((time.perf_counter() - began_s) / _STEP_S))
    if not is_found:
        yield jsonschema.ValidationError("does not match the pattern")


def _unique_items(_validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    """``uniqueItems`` in linear time; 1 and 1.0 count as different."""
    if wanted and isinstance(instance, list):
        budget, seen = _budget.get(), set[bytes]()
        for item in instance:
            encoded = _sorted.encode(item)
            budget.take(1 + len(encoded) // _MESSAGE_CHARS_PER_STEP)
            seen.add(encoded)
        if len(seen) < len(instance):
            yield jsonschema.ValidationError("has items that are the same")


def _evolve(self: Any, **changes: Any) -> Any:
    """jsonschema's own takes another class, which counts nothing, where a subschema has a ``$schema``."""
    for field in attrs.fields(type(self)):
        if field.init:
            changes.setdefault(field.alias, getattr(self, field.name))
    return type(self)(**changes)


_sorted = msgspec.json.Encoder(order="deterministic")
_CHECKS: dict[str, _Check] = {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique_items}
_Validator = jsonschema.validators.extend(
    Draft202012Validator, {keyword: _counted(keyword, check) for keyword, check in _CHECKS.items()}
)
_Validator.evolve = _evolve
_META = _Validator(Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)

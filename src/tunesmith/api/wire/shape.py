"""The two base classes of the wire: what comes in is checked strictly, what goes out is complete."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tunesmith.core.errors import InvalidRequest


class RequestBody(BaseModel):
    """A request's JSON. An argument that does not exist is refused, as OpenAI refuses it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WholeBody(RequestBody):
    """The outermost object of a request."""

    @model_validator(mode="before")
    @classmethod
    def _require_unicode(cls, body: Any) -> Any:
        """JSON can escape half of a surrogate pair; no UTF-8, hence no database and no engine, can hold it."""
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            field = _field_with(chr(half), body)
            raise InvalidRequest(
                f"Invalid value for '{field or 'a name'}': \\u{half:04x} is half of a surrogate pair, no character.",
                param=field,
                code="invalid_value",
                mend="Send text as UTF-8, or escape both halves.",
            ) from None
        return body


def _field_with(character: str, body: Any) -> str | None:
    """The outermost field that holds it; None where a name of a field does."""
    fields: dict[str, Any] = body if isinstance(body, dict) else {}
    holders = (name for name, value in fields.items() if character in json.dumps(value, ensure_ascii=False))
    return next((name for name in holders if character not in name), None)


class ResponseBody(BaseModel):
    """A response's JSON."""

    model_config = ConfigDict(frozen=True)


def _is_none(value: object) -> bool:
    return value is None


def omitted_if_none() -> Any:  # pydantic's own field functions are typed so, to stand as a default
    """A field that OpenAI's schema does not allow to be null: it is left out instead."""
    exclude_if: Callable[[Any], bool] = _is_none
    return Field(default=None, exclude_if=exclude_if)


MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]


class Deleted(ResponseBody):
    """The answer to a DELETE; ``object`` is the kind of thing deleted."""

    id: str
    object: Literal["file", "model"]
    deleted: bool = True

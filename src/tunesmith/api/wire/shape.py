"""The two base classes of the wire: what comes in is checked strictly, what goes out is complete."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class RequestBody(BaseModel):
    """A request's JSON. An argument that does not exist is refused, as OpenAI refuses it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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

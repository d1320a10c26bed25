"""The Model object and its list."""

from typing import Literal

from tunesmith.api.wire.shape import ResponseBody


class Model(ResponseBody):
    """A name that answers: a base model, a tuned model, or a checkpoint."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(ResponseBody):
    object: Literal["list"] = "list"
    data: list[Model]

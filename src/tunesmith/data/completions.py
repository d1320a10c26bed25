"""How prompts with their completions are read, by what was asked and what the model is."""

from tunesmith.catalog.models import BaseModel
from tunesmith.core.errors import InvalidRequest
from tunesmith.data.tokens import Completions


def completions_for(base: BaseModel, asked: Completions | None, param: str = "completions") -> Completions | None:
    """As raw text where the model continues raw text; None, which refuses such rows, where it is a chat model.

    Raises InvalidRequest for raw text and a chat model.
    """
    if asked == "plain" and not base.completions:
        raise InvalidRequest(
            f"{base.id} is a chat model: it is not trained on raw completions.",
            code="invalid_value",
            param=param,
            mend="Use \"chat\": the prompt becomes the user's message and the completion the assistant's.",
        )
    return asked or ("plain" if base.completions else None)

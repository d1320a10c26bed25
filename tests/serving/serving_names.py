"""Names that tests and fixtures of serving share."""

from collections.abc import Callable, Coroutine
from typing import Any

from tunesmith.catalog.models import embedded_model

MODEL = embedded_model().id
TUNED = "ft:smollm2-135m-instruct:tunesmith:desk:abcd1234"
Run = Callable[[Coroutine[Any, Any, Any]], Any]

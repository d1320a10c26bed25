"""What the commands on data files share: a path or an id, a bar on a terminal, the model that counts tokens."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.core.settings import Settings

if TYPE_CHECKING:
    from tunesmith.catalog.models import BaseModel
    from tunesmith.data.read import Progress
    from tunesmith.data.tokens import Completions, RowTokenizer


def is_id(file: str) -> bool:
    """Whether it names a file of the server; a path of that name goes first."""
    return file.startswith("file-") and not Path(file).exists()


def local_file(file: str) -> Path:
    """Raises InvalidRequest where there is no such file, by what there is."""
    path = Path(file).expanduser()
    if not file:
        raise InvalidRequest("The path is empty.", mend="Give a path, or a file's id.")
    if path.is_dir():
        raise InvalidRequest(f"{file} is a folder.", mend="Give one of its files.")
    if path.is_symlink() and not path.exists():
        raise InvalidRequest(f"{file} is a link to {path.readlink()}, which is not there.", mend="Check the path.")
    if not path.exists():
        raise InvalidRequest(f"There is no file {file}.", mend="Check the path, or give a file's id.")
    if not path.is_file():
        raise InvalidRequest(f"{file} is a pipe or a device, not a file.", mend="Write what it gives to a file first.")
    return path


def new_path(path: Path, option: str) -> Path:
    """A path to write to. Raises InvalidRequest where something is: data is not written over."""
    if path.exists() or path.is_symlink():
        raise InvalidRequest(f"{path} is there already.", mend=f"Name another path with {option}.")
    if not path.parent.is_dir():
        raise InvalidRequest(f"There is no folder {path.parent}.", mend="Make it, or name another path.")
    return path


@contextmanager
def progress_bar(what: str) -> Iterator["Progress | None"]:
    """A bar on standard error, where a person sees it; else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def find_tokenizer(
    settings: Settings, model: str | None, completions: "Completions | None"
) -> "tuple[RowTokenizer, int] | None":
    """A base model's tokenizer and the longest row that it takes, in tokens. Without a name the built-in model's.

    ``completions`` is a job's option: without it, as in a job, the model decides. None when no name was given and that
    model is not installed. Raises NotFound for a name that is not installed, InvalidRequest for raw text and a chat
    model.
    """
    from tunesmith.catalog.models import base_dir
    from tunesmith.data.completions import completions_for
    from tunesmith.data.tokens import RowTokenizer

    base = _find_installed(settings, model)
    if base is None:
        return None
    reading = completions_for(base, completions)
    return RowTokenizer.from_dir(base_dir(settings, base.id), completions=reading), base.context_tokens


def find_completions(settings: Settings, model: str | None, completions: "Completions | None") -> "Completions | None":
    """How that model's job would read prompts with their completions. Raises as ``find_tokenizer`` does."""
    from tunesmith.data.completions import completions_for

    base = _find_installed(settings, model)
    return None if base is None else completions_for(base, completions)


def _find_installed(settings: Settings, model: str | None) -> "BaseModel | None":
    from tunesmith.catalog.models import FIND_MODELS, embedded_model, find_base_model, is_installed

    base = embedded_model() if model is None else find_base_model(settings, model)
    if base is None or not is_installed(settings, base.id):
        if model is None:
            return None
        raise NotFound(
            f"The model {model!r} is not installed.",
            code="model_not_found",
            mend=FIND_MODELS,
        )
    return base

"""``tunesmith files``: upload, list, show, delete, content."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.data_paths import local_file
from tunesmith.cli.objects import DataFile, FileObject, Page
from tunesmith.core.settings import load_settings

app = App(name="files", help="Upload, list, read and delete data files.", default_parameter=Parameter(negative=()))

app.command(
    "tunesmith.cli.estimate:estimate",
    help="Say what a job on a file will take: tokens and money exactly, time and memory about.\n\n"
    "A path is estimated on this machine, without a server; a file's id by the server that has it.",
)
app.command(
    "tunesmith.cli.check:check",
    help="Check a data file: every row, every fault, the tokens.\n\n"
    "A path is checked on this machine, without a server; a file's id by the server that has it. The exit status is 1 "
    "when something would stop a job.",
)
app.command(
    "tunesmith.cli.preview:preview",
    help="Show what a model sees of one row, and what it learns.\n\n"
    "The tokens are made by the code that feeds the trainer.",
)
app.command(
    "tunesmith.cli.mend:mend",
    help="Make a new file by fixes that a machine can do.\n\n"
    "Rows that no fix touches keep their bytes. Of a path a new path is made, of a file's id a new file.",
)
app.command(
    "tunesmith.cli.split:split",
    help="Make a file to train on and one for validation.\n\n"
    "Labels give the same share each, and rows that are nearly the same stay on one side. Of a path new paths are "
    "made, of a file's id new files.",
)


@app.command
def upload(path: Path, *, purpose: str = "fine-tune", as_json: show.AsJson = False) -> None:
    """Upload a file, for instance JSONL with one chat a line.

    Parameters
    ----------
    path
        The file to send.
    purpose
        What it is for.
    """
    file = local_file(str(path))
    with Client.from_settings(load_settings()) as client:
        show.answer(client.upload_file(file, purpose), as_json, _show_file)


@app.command(name="list")
def list_files(
    *, purpose: str | None = None, limit: int = 100, after: str | None = None, as_json: show.AsJson = False
) -> None:
    """List files, newest first.

    Parameters
    ----------
    purpose
        Only files for this purpose.
    limit
        At most this many.
    after
        Go on after this file's id.
    """
    with Client.from_settings(load_settings()) as client:
        show.answer(client.list_files(purpose, limit, after), as_json, _show_page)


@app.command(name="show")
def show_file(file_id: str, *, as_json: show.AsJson = False) -> None:
    """Show one file's particulars, and what it was made from.

    Parameters
    ----------
    file_id
        For instance file-abc.
    """
    with Client.from_settings(load_settings()) as client:
        show.answer(client.retrieve_data_file(file_id), as_json, show_data_file)


@app.command
def delete(file_id: str, *, as_json: show.AsJson = False) -> None:
    """Delete a file.

    Parameters
    ----------
    file_id
        For instance file-abc.
    """
    with Client.from_settings(load_settings()) as client:
        show.answer(client.delete_file(file_id), as_json, lambda gone: show.line(f"Deleted {gone.id}"))


@app.command
def content(file_id: str, *, output: Annotated[Path | None, Parameter(alias="-o")] = None) -> None:
    """Print a file's content, byte for byte.

    Parameters
    ----------
    file_id
        For instance file-abc.
    output
        Write to this path instead.
    """
    with Client.from_settings(load_settings()) as client:
        pieces = client.stream_content(file_id)
        first = next(pieces, b"")  # an unknown file fails here, before anything is opened for writing
        with output.open("wb") if output else open(sys.stdout.fileno(), "wb", closefd=False) as sink:
            sink.write(first)
            for piece in pieces:
                sink.write(piece)


def _show_file(file: FileObject) -> None:
    show.fields(
        [
            ("id", file.id),
            ("filename", file.filename),
            ("purpose", file.purpose),
            ("size", show.size(file.bytes)),
            ("status", file.status),
            ("created", show.moment(file.created_at)),
        ]
    )


def show_data_file(file: DataFile) -> None:
    """A file, with its lineage where it has one."""
    _show_file(file)
    pairs = [("made from", file.parent_id), *_lineage(file.lineage or {}), ("made of it", ", ".join(file.children))]
    present = [(name, value) for name, value in pairs if value]
    if present:
        show.fields([(f"{name:<9}", value) for name, value in present])


def _lineage(lineage: dict[str, Any]) -> list[tuple[str, str | None]]:
    """How a file was made: the action, then every choice and count that it left."""
    if not lineage:
        return []
    details = [
        f"{name.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in lineage.items()
        if name != "action" and value not in (None, [], "") and not isinstance(value, dict)
    ]
    return [("made by", f"{lineage.get('action')} ({'; '.join(details)})")]


def _show_page(page: Page[FileObject]) -> None:
    rows = [
        (file.id, file.filename, file.purpose, show.size(file.bytes), show.moment(file.created_at) or "")
        for file in page.data
    ]
    show.table(("id", "filename", "purpose", "size", "created"), rows)
    if page.has_more:
        show.note(f"There are more: tunesmith files list --after {page.data[-1].id}")

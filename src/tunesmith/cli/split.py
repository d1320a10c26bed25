"""``tunesmith files split``: rows held out for validation, once and for all."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.data_paths import is_id, local_file, new_path, progress_bar
from tunesmith.cli.objects import DataFile
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from tunesmith.data.split_file import SplitSummary


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer."""

    train: DataFile
    valid: DataFile
    summary: msgspec.Raw


def split(
    file: str,
    *,
    share: float | None = None,
    count: int | None = None,
    seed: int = 0,
    train: Path | None = None,
    valid: Path | None = None,
    as_json: show.AsJson = False,
) -> None:
    """Make a file to train on and one for validation.

    Labels give the same share each, and rows that are nearly the same stay on one side. Of a path new paths are made,
    of a file's id new files.

    Parameters
    ----------
    file
        A path, or a file's id.
    share
        Hold out this share of the rows: 0.2 unless a count is given.
    count
        Hold out this many rows.
    seed
        Decides which; the same seed gives the same files.
    train
        Path of the rows to train on; by default beside the file, as claims.train.jsonl.
    valid
        Path of the rows held out; by default beside the file, as claims.valid.jsonl.
    """
    settings = load_settings()
    if is_id(file):
        if train is not None or valid is not None:
            raise InvalidRequest("--train and --valid are for paths.", mend="The new files have ids.")
        _split_there(settings, file, {"share": share, "count": count, "seed": seed}, as_json)
    else:
        _split_here(local_file(file), share, count, seed, train, valid, as_json)


def _split_there(settings: Settings, file_id: str, body: dict[str, object], as_json: bool) -> None:
    from tunesmith.data.split_file import SplitSummary

    with Client.from_settings(settings) as client:
        present = {name: value for name, value in body.items() if value is not None}
        reply = client.derive_from_file(Parts, file_id, "split", present)
    if as_json:
        show.json_bytes(reply.document)
        return
    _show_summary(msgspec.json.decode(reply.value.summary, type=SplitSummary))
    show.fields([("train", reply.value.train.id), ("valid", reply.value.valid.id)])


def _split_here(
    path: Path, share: float | None, count: int | None, seed: int, train: Path | None, valid: Path | None, as_json: bool
) -> None:
    from tunesmith.data.derived_name import derived_name
    from tunesmith.data.split_file import split_file

    outs = [
        new_path(given or path.with_name(derived_name(path.name, word)), f"--{word}")
        for given, word in ((train, "train"), (valid, "valid"))
    ]
    with progress_bar("splitting") as progress:
        summary = split_file(path, outs[0], outs[1], share=share, count=count, seed=seed, progress=progress)
    if as_json:
        show.json_object({"train": str(outs[0]), "valid": str(outs[1]), "summary": summary})
        return
    _show_summary(summary)
    show.fields([("train", str(outs[0])), ("valid", str(outs[1]))])


def _show_summary(summary: "SplitSummary") -> None:
    fewer = f", {summary.num_valid_asked:,} were asked for" if summary.num_valid < summary.num_valid_asked else ""
    rows = show.count(summary.num_rows, "row")
    show.line(f"{rows}: {summary.num_train:,} to train on, {summary.num_valid:,} held out{fewer}")
    if summary.num_alike:
        show.line(f"{summary.num_alike:,} rows have their like in the file, on the same side")
    if summary.labels:
        labels = [(label.answer, f"{label.num_train}", f"{label.num_valid}") for label in summary.labels]
        show.table(("label", "train", "valid"), labels)

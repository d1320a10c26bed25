"""``tunesmith files mend``: a new file by chosen fixes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec
from cyclopts import Parameter

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.data_paths import find_completions, find_tokenizer, is_id, local_file, new_path, progress_bar
from tunesmith.cli.files import show_data_file
from tunesmith.cli.objects import DataFile
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings, load_settings
from tunesmith.data.rule import FixName

if TYPE_CHECKING:
    from tunesmith.data.mend import MendSummary
    from tunesmith.data.read import Progress

Many = Parameter(consume_multiple=True)


class Mended(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer."""

    file: DataFile
    summary: msgspec.Raw


def mend(
    file: str,
    *,
    fix: Annotated[list[FixName], Many],
    line: Annotated[list[int] | None, Many] = None,
    rule: Annotated[list[str] | None, Many] = None,
    model: str | None = None,
    completions: Literal["chat", "plain"] | None = None,
    validation_file: Annotated[str | None, Parameter(alias="--validation")] = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    as_json: show.AsJson = False,
) -> None:
    """Make a new file by fixes that a machine can do.

    Rows that no fix touches keep their bytes. Of a path a new path is made, of a file's id a new file.

    Parameters
    ----------
    file
        A path, or a file's id.
    fix
        One or several. drop_rows drops rows with errors, unless lines or rules are given.
    line
        drop_rows: drop the rows on these lines.
    rule
        drop_rows: drop the rows in which these rules of the doctor found something.
    model
        A base model whose limit makes a row too long. By default the built-in model, if it is installed.
    completions
        How prompts with their completions are read, as in jobs create.
    validation_file
        A path or an id, as the file, for rules that compare both: --rule validation_overlap drops what stands in it.
    output
        The new file's path; by default beside the old one, as claims.mended.jsonl.
    """
    settings = load_settings()
    if is_id(file):
        if output is not None:
            raise InvalidRequest("--output is for paths.", mend="Read the new file with: tunesmith files content ID")
        if validation_file is not None and not is_id(validation_file):
            raise InvalidRequest("--validation of a file's id is an id too.", mend="Upload the file first.")
        chosen = {"fixes": fix, "lines": line, "rules": rule, "model": model, "completions": completions}
        _mend_there(settings, file, {**chosen, "validation": validation_file}, as_json)
    else:
        view = _View(model, completions, None if validation_file is None else local_file(validation_file))
        _mend_here(settings, local_file(file), fix, line, rule, view, output, as_json)


class _View(NamedTuple):
    """What findings depend on beside the file."""

    model: str | None
    completions: Literal["chat", "plain"] | None
    validation: Path | None


def _mend_there(settings: Settings, file_id: str, body: dict[str, object], as_json: bool) -> None:
    from tunesmith.data.mend import MendSummary

    with Client.from_settings(settings) as client:
        present = {name: value for name, value in body.items() if value is not None}
        reply = client.derive_from_file(Mended, file_id, "mend", present)
    if as_json:
        show.json_bytes(reply.document)
        return
    _show_summary(msgspec.json.decode(reply.value.summary, type=MendSummary))
    show_data_file(reply.value.file)


def _mend_here(
    settings: Settings,
    path: Path,
    fixes: list[FixName],
    lines: list[int] | None,
    rules: list[str] | None,
    view: _View,
    output: Path | None,
    as_json: bool,
) -> None:
    from tunesmith.data.derived_name import derived_name
    from tunesmith.data.mend import mend as mend_data
    from tunesmith.data.mend import token_errors

    out = new_path(output or path.with_name(derived_name(path.name, "mended")), "--output")
    with progress_bar("mending") as progress:
        if rules is not None:
            lines = sorted({*(lines or ()), *_lines_with(settings, path, rules, view, progress)})
        judges = "drop_rows" in fixes and lines is None
        found = find_tokenizer(settings, view.model, view.completions) if judges else None
        errors = token_errors(*found) if found else None
        summary = mend_data(path, out, fixes, lines=lines, row_errors=errors, must_change=True, progress=progress)
    if as_json:
        show.json_object({"output": str(out), "summary": summary})
        return
    _show_summary(summary)
    show.line(f"{out} is written")


def _lines_with(settings: Settings, path: Path, rules: list[str], view: _View, progress: "Progress | None") -> set[int]:
    """Lines of rows in which these rules find something."""
    from tunesmith.data.doctor import check
    from tunesmith.data.findings import Finding
    from tunesmith.data.rules import RULES

    unknown = sorted(set(rules) - set(RULES))
    if unknown:
        raise InvalidRequest(
            f"There is no rule {unknown[0]!r}.", mend="docs/reference/doctor-rules.md lists every rule."
        )
    lines: set[int] = set()

    def note(finding: Finding) -> None:
        if finding.rule in rules and finding.line is not None:
            lines.add(finding.line)

    check(
        path,
        model=view.model,
        completions=find_completions(settings, view.model, view.completions),
        validation=view.validation,
        sink=note,
        progress=progress,
        settings=settings,
    )
    return lines


def _show_summary(summary: "MendSummary") -> None:
    before = show.count(summary.num_rows_before, "row")
    changes = f"{summary.num_changed:,} changed, {summary.num_dropped:,} dropped, {summary.num_rows_after:,} left"
    show.line(f"{before}: {changes}")
    if summary.num_unreadable_rows:
        num = summary.num_unreadable_rows
        show.line(
            f"{num:,} row{'s' * (num > 1)} could not be read and stay as they were, personal data too: see drop_rows"
        )
    show.table(("fix", "rows", "places"), [(c.fix, f"{c.num_rows}", f"{c.num_places}") for c in summary.fixes])
    for diff in summary.diffs:
        place = f" at {diff.json_path}" if diff.json_path else ""
        show.line(f"line {diff.line}{place}: {diff.reason or diff.fix}")
        show.line(f"  - {_one_line(diff.before)}")
        if diff.after is not None:
            show.line(f"  + {_one_line(diff.after)}")


def _one_line(text: str) -> str:
    """White space at the ends is what some fixes are about: quotes show it."""
    return msgspec.json.encode(text).decode()

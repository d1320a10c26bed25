"""``tunesmith files check``: a report on a data file."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.data_paths import find_completions, is_id, local_file, progress_bar
from tunesmith.cli.objects import Answer
from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from tunesmith.data.findings import FindingGroup
    from tunesmith.data.report import DatasetReport, TokenStats

ASK_EVERY_S = 0.5


def check(
    file: str,
    *,
    model: str | None = None,
    validation_file: Annotated[str | None, Parameter(alias="--validation")] = None,
    completions: Literal["chat", "plain"] | None = None,
    depth: Literal["structure", "tokens", "full"] = "full",
    as_json: show.AsJson = False,
) -> int:
    """Check a data file: every row, every fault, the tokens.

    A path is checked on this machine, without a server; a file's id by the server that has it. The exit status is 1
    when something would stop a job.

    Parameters
    ----------
    file
        A path, or a file's id.
    model
        Count tokens for this base model; with a file's id also for a tuned one. By default the built-in model, if it is
        installed.
    validation_file
        A path or an id, as the file: also look for its prompts among the training rows.
    completions
        How prompts with their completions are read, as in jobs create.
    depth
        structure: only whether rows can be read; tokens: also count and fit them; full: also look at what they say.
    """
    settings = load_settings()
    if is_id(file):
        if depth != "full":
            raise InvalidRequest("--depth is for paths.", mend="Leave it out.")
        if validation_file is not None and not is_id(validation_file):
            raise InvalidRequest("--validation of a file's id is an id too.", mend="Upload the file first.")
        query = {"model": model, "completions": completions, "validation": validation_file}
        reply = _check_there(settings, file, query)
    else:
        reply = _check_here(settings, local_file(file), model, validation_file, completions, depth)
    show.answer(reply, as_json, _show_report)
    return 1 if reply.value.num_errors else 0


def _check_here(
    settings: Settings,
    path: Path,
    model: str | None,
    validation_file: str | None,
    completions: Literal["chat", "plain"] | None,
    depth: Literal["structure", "tokens", "full"],
) -> "Answer[DatasetReport]":
    from tunesmith.catalog.embedding import is_embedding_installed
    from tunesmith.data.doctor import check as check_data
    from tunesmith.serving.engines.embedding import Embedder

    with progress_bar("checking") as progress, Embedder(settings) as embedder:
        report = check_data(
            path,
            model=model,
            validation=None if validation_file is None else local_file(validation_file),
            completions=find_completions(settings, model, completions),
            embed=embedder.embed if is_embedding_installed(settings) else None,
            depth=depth,
            progress=progress,
            settings=settings,
        )
    return Answer(report, msgspec.json.encode(report))


def _check_there(settings: Settings, file_id: str, query: Mapping[str, str | None]) -> "Answer[DatasetReport]":
    from tunesmith.data.report import DatasetReport

    with Client.from_settings(settings) as client, progress_bar("checking") as progress:
        while True:
            reply = client.ask_of_file(dict[str, Any], file_id, "report", query)
            if reply.value.get("object") != "dataset.check":
                return Answer(msgspec.json.decode(reply.document, type=DatasetReport), reply.document)
            if progress is not None:
                progress(round(1000 * reply.value["progress"]), 1000)
            time.sleep(ASK_EVERY_S)


def _show_report(report: "DatasetReport") -> None:
    rows = show.count(report.num_rows, f"{report.kind} row" if report.kind else "row")
    unknown = "" if report.kind or not report.num_rows else ", none of a kind that is known"
    show.line(f"{report.filename}: {rows}{unknown}, {show.size(report.num_bytes)}")
    counts = ((report.num_errors, "error"), (report.num_warnings, "warning"), (report.num_hints, "hint"))
    bad = f" ({show.count(report.num_bad_rows, 'row')} with errors)" if report.num_bad_rows else ""
    show.line(", ".join(show.count(number, word) for number, word in counts) + bad)
    for group in report.groups:
        _show_group(group)
    if report.tokens is not None:
        _show_tokens(report.tokens)
    if report.labels:
        most = ", ".join(f"{label.answer} {label.num_rows:,}" for label in report.labels[:8])
        more = f" and {len(report.labels) - 8:,} more" if len(report.labels) > 8 else ""
        show.line(f"\nlabels: {most}{more}")
    for skipped in report.skipped:
        show.line(f"\nnot looked at, or in part ({skipped.rule}): {skipped.reason}")
    fixes = list(dict.fromkeys(group.fix for group in report.groups if group.fix))
    if fixes:
        show.note(f"A machine can mend some of it: tunesmith files mend FILE --fix {' '.join(fixes)}")


def _show_group(group: "FindingGroup") -> None:
    show.line(f"\n{group.severity}: {group.title} ({group.rule}), {show.count(group.count, 'time')}")
    for finding in group.samples:
        where = f"line {finding.line}" if finding.line is not None else "file"
        place = f" at {finding.json_path}" if finding.json_path else ""
        show.line(f"  {where}{place}: {finding.what}")
    if group.count > len(group.samples):
        show.line(f"  and {group.count - len(group.samples):,} more")
    show.line(f"  why: {group.why}")
    show.line(f"  mend: {group.mend}" + (f" Or by machine: --fix {group.fix}" if group.fix else ""))


def _show_tokens(tokens: "TokenStats") -> None:
    show.line(
        f"\ntokens for {tokens.model}: {tokens.num_tokens:,}, of which {tokens.num_supervised_tokens:,} are learned"
    )
    show.line(
        f"  a row: least {tokens.row_min:,}, median {tokens.row_median:,.0f}, p95 {tokens.row_p95:,.0f}, "
        f"most {tokens.row_max:,} of {tokens.limit_tokens:,}; {show.count(tokens.num_over_limit, 'row')} over the limit"
    )
    show.line(
        f"  shared prefixes save {tokens.shared_prefix_tokens:,} of them an epoch in batches of "
        f"{tokens.shared_batch_rows} rows in file order; files estimate counts a job's own batches"
    )

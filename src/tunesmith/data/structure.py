"""The structural check alone: every row read and judged by its form, nothing rendered, nothing tokenised."""

from pathlib import Path

import msgspec

from tunesmith.data.findings import FindingLog, Sink
from tunesmith.data.read import Progress
from tunesmith.data.rows import Kind
from tunesmith.data.scan import detect_kind, scan


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """What the structural check of one file gave."""

    kind: Kind | None
    """None when none of the first rows is a row of any kind."""
    num_rows: int
    """Lines that are not blank, good or bad."""
    num_bad_rows: int
    """Rows with at least one error."""
    findings: FindingLog


def check_structure(
    path: Path, *, kind: Kind | None = None, progress: Progress | None = None, sink: Sink | None = None
) -> Structure:
    """Read a whole file in flat memory. Every finding goes to ``sink``. Raises OSError only."""
    kind = kind or detect_kind(path)
    log = FindingLog(sink)
    num_rows = num_bad_rows = 0
    for batch in scan(path, kind=kind, progress=progress):
        num_rows += len(batch.rows)
        num_bad_rows += batch.rows.count(None)
        for finding in batch.findings:
            log.add(finding)
    return Structure(kind=kind, num_rows=num_rows, num_bad_rows=num_bad_rows, findings=log)

"""``DatasetReport``: everything that is known of a data set, as one plain document for API, CLI and Studio."""

import msgspec

from tunesmith.data.findings import FindingGroup, Verdict
from tunesmith.data.formats import Kind


class HistogramBin(msgspec.Struct, frozen=True, kw_only=True):
    """Rows with more than ``above`` and at most ``up_to`` tokens."""

    above: int
    up_to: int
    num_rows: int


class TokenStats(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a file as one model would be trained on them, each row once."""

    model: str
    tokenizer_sha256: str
    """Of tokenizer.json and the chat template together: counts of other ones do not compare."""
    num_tokens: int
    num_supervised_tokens: int
    row_min: int
    row_median: float
    row_p95: float
    row_max: int
    limit_tokens: int
    """The longest row that the model takes."""
    num_over_limit: int
    shared_prefix_tokens: int
    """Tokens of an epoch that the engine need not compute, in batches of ``shared_batch_rows`` rows in file order."""
    shared_batch_rows: int
    histogram: list[HistogramBin]
    digest: str
    """SHA-256 over the token ids and marks of all rows in order: a job records the same of what it trained on."""


class LabelCount(msgspec.Struct, frozen=True, kw_only=True):
    answer: str
    num_rows: int


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that did not run, or ran on a sample only, and why."""

    rule: str
    reason: str


class DatasetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``check`` found. The same file, model and rules give the same report, byte for byte."""

    version: int = 1
    filename: str
    sha256: str
    num_bytes: int
    kind: Kind | None
    """None when no row could be read."""
    num_rows: int
    num_bad_rows: int
    """Rows with at least one error."""
    verdict: Verdict
    num_errors: int
    num_warnings: int
    num_hints: int
    groups: list[FindingGroup]
    tokens: TokenStats | None
    """None without a model."""
    labels: list[LabelCount] | None
    """The answers with their numbers, most frequent first, when answers are labels: few, short, repeated."""
    languages: dict[str, int]
    """ISO 639-1 code -> rows, of the rows long enough to tell."""
    messages_per_row: dict[int, int]
    """Number of messages -> rows."""
    skipped: list[Skipped]

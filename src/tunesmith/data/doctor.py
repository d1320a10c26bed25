"""The doctor: everything that is known of a data set, in one pass over the file and one word at its end.

Depths: ``structure`` reads every row; ``tokens`` also renders and counts it as the trainer will; ``full`` also looks at
what it says, and at the set as a whole. Memory does not hold the rows: some hundred bytes a row, and stated samples.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tunesmith.catalog.models import FIND_MODELS, base_dir, embedded_model, find_base_model, is_installed
from tunesmith.core.errors import NotFound
from tunesmith.core.settings import Settings, load_settings
from tunesmith.data.content.rows import RowRules
from tunesmith.data.content.turns import RowView, view
from tunesmith.data.findings import Finding, FindingLog, Sink, Verdict
from tunesmith.data.phases import COMPARED_BYTES_PER_S, EMBEDDED_TEXTS_PER_S, READ_BYTES_PER_S, Phases
from tunesmith.data.read import Progress
from tunesmith.data.report import DatasetReport, Skipped, TokenStats
from tunesmith.data.rows import Kind, kind_of, num_messages
from tunesmith.data.rules import RULES
from tunesmith.data.scan import Batch, scan
from tunesmith.data.sets.answers import Preferences, Refusals
from tunesmith.data.sets.endings import Endings
from tunesmith.data.sets.forms import Forms
from tunesmith.data.sets.labels import Labels
from tunesmith.data.sets.languages import Languages
from tunesmith.data.sets.missing_systems import MissingSystems
from tunesmith.data.sets.near_rows import MAX_KEPT_CHARS, NearRows, leak_findings
from tunesmith.data.sets.relevance import Embed, Relevance
from tunesmith.data.sets.repeats import Repeats
from tunesmith.data.sets.rule import SetRule
from tunesmith.data.sets.sizes import Lengths, SystemPrompts, kind_findings, size_findings
from tunesmith.data.token_cache import TokenCache, is_same_file
from tunesmith.data.token_counter import TokenTally, count_tokens
from tunesmith.data.token_stats import token_stats
from tunesmith.data.token_table import TokenTable
from tunesmith.data.tokens import Completions, RowTokenizer

Depth = Literal["structure", "tokens", "full"]
_ROW_BYTES = 600
"""Of a row in words, as long as nothing is known of them."""


def check(
    path: Path | str,
    *,
    model: str | None = None,
    tokenizer: RowTokenizer | None = None,
    limit_tokens: int | None = None,
    kind: Kind | None = None,
    completions: Completions | None = None,
    validation: Path | str | None = None,
    embed: Embed | None = None,
    depth: Depth = "full",
    sink: Sink | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
    cache: TokenCache | None = None,
) -> DatasetReport:
    """Check every row of a training file.

    ``model`` is a base model's id or alias: its tokens are counted. Without one the model that comes with the program
    is taken where it is installed. A ``tokenizer`` may be given instead, with ``limit_tokens``, the longest row that is
    allowed. ``kind`` is decided by the first rows unless given. ``validation`` is a file that must not share prompts
    with this one. ``embed`` gives vectors of texts; without it answers are not compared with their prompts. Every
    finding goes to ``sink``; ``progress`` is told how much of the work is done, in parts of the whole. A ``cache``
    keeps the token counts for the estimate or the job that comes next.

    Raises NotFound for a model that is not installed, OSError for a file that cannot be read. Bad rows are findings.
    """
    path = Path(path)
    before = path.stat()
    target = None if depth == "structure" else _target(model, tokenizer, limit_tokens, completions, settings)
    phases = Phases(progress)
    phases.expect("reading", before.st_size / READ_BYTES_PER_S)
    content = _Content(embed, phases) if depth == "full" else None
    if content is not None:
        content.expect(path, validation)
    visit = _Visit(FindingLog(sink), content)
    batches = scan(path, kind=kind, progress=phases.follow("reading"))
    table = None
    if target is None:
        visit.read(batches)
    else:
        table = visit.read_and_count(batches, path, target)
    visit.conclude(None if validation is None else Path(validation))
    report = visit.report(path, target, table)
    phases.end()
    if target is not None and table is not None and cache is not None and is_same_file(before, path.stat()):
        cache.keep(table, report.sha256, target.tokenizer.identity, target.limit)
    return report


class _Target(msgspec.Struct):
    """The model whose tokens are counted."""

    model: str
    tokenizer: RowTokenizer
    limit: int

    def stats(self, table: TokenTable, num_over_limit: int) -> TokenStats | None:
        return token_stats(
            table,
            model=self.model,
            tokenizer_sha256=self.tokenizer.identity,
            limit=self.limit,
            num_over_limit=num_over_limit,
        )


def _target(
    model: str | None,
    tokenizer: RowTokenizer | None,
    limit: int | None,
    completions: Completions | None,
    settings: Settings | None,
) -> _Target | None:
    """None when no model was named and none is installed."""
    if tokenizer is None:
        settings = settings or load_settings()
        base = embedded_model() if model is None else find_base_model(settings, model)
        if base is None or not is_installed(settings, base.id):
            if model is None:
                return None
            raise NotFound(
                f"The model {model!r} is not installed.",
                code="model_not_found",
                param="model",
                mend=FIND_MODELS,
            )
        tokenizer = RowTokenizer.from_dir(base_dir(settings, base.id), completions=completions)
        model, limit = base.id, min(limit or base.context_tokens, base.context_tokens)
    assert limit is not None, "a tokenizer comes with its limit"
    return _Target(model or "given", tokenizer, limit)


class _Content:
    """The rules of rows and of the whole set."""

    def __init__(self, embed: Embed | None, phases: Phases):
        self._phases = phases
        self.rows = RowRules()
        self.labels = Labels()
        self.languages = Languages()
        self.near = NearRows(phases.follow("comparing"))
        self.relevance = Relevance(embed, phases.follow("embedding"))
        self.rules: Sequence[SetRule] = (
            Lengths(),
            SystemPrompts(),
            Repeats(),
            self.near,
            self.labels,
            Endings(),
            Forms(),
            self.languages,
            Refusals(),
            Preferences(),
            self.relevance,
        )

    def expect(self, path: Path, validation: Path | str | None) -> None:
        """What the whole set will take, by the size of the files."""
        size = path.stat().st_size
        self._phases.expect("comparing", min(size, MAX_KEPT_CHARS) / COMPARED_BYTES_PER_S)
        self._phases.expect("embedding", self.relevance.num_texts(size // _ROW_BYTES) / EMBEDDED_TEXTS_PER_S)
        if validation is not None:
            size += Path(validation).stat().st_size
            self._phases.expect("validation", size / COMPARED_BYTES_PER_S)

    def findings(self) -> Iterator[Finding]:
        """Of the whole set, after the last row. How many texts there are to embed is known by now."""
        self._phases.expect("embedding", self.relevance.num_texts() / EMBEDDED_TEXTS_PER_S)
        for rule in self.rules:
            yield from rule.findings()

    def leaks(self, validation: Path, kind: Kind | None) -> Iterator[Finding]:
        """Prompts of this set that stand in the validation file."""
        prompts, follow = NearRows(), self._phases.follow("validation")
        for batch in scan(validation, kind=kind, progress=lambda done, total: follow(done, 2 * total)):
            for line, row in zip(batch.numbers, batch.rows, strict=True):
                if row is not None:
                    prompts.add(view(row, line))
        yield from leak_findings(self.near, prompts)

    def see(self, row: RowView) -> Iterator[Finding]:
        for rule in self.rules:
            rule.add(row)
        return self.rows.findings(row)


class _Visit:
    """One file's check."""

    def __init__(self, log: FindingLog, content: _Content | None):
        self._log = log
        self._content = content
        self._num_rows = 0
        self._num_bad_rows = 0
        self._num_over_limit = 0
        self._systems = MissingSystems()
        self._kind: Kind | None = None
        self._messages: Counter[int] = Counter()

    def read(self, batches: Iterable[Batch]) -> None:
        """Every row, without counting tokens."""
        for batch in batches:
            self._look(batch)
            self._close(batch, [])

    def read_and_count(self, batches: Iterable[Batch], path: Path, target: _Target) -> TokenTable:
        with count_tokens(path, target.tokenizer, target.limit) as counter:
            tally = TokenTally(counter)
            for batch in batches:
                tally.add(batch)
                self._look(batch)
                for done in tally.due():
                    self._close(*done)
            for done in tally.rest():
                self._close(*done)
        return tally.table()

    def _look(self, batch: Batch) -> None:
        """What the rows say, added to the batch's findings."""
        content = self._content
        for line, row in zip(batch.numbers, batch.rows, strict=True):
            if row is None:
                continue
            self._kind = self._kind or kind_of(row)
            self._messages[num_messages(row)] += 1
            self._systems.see(row)
            if content is not None:
                batch.findings += content.see(view(row, line))

    def _close(self, batch: Batch, token_findings: list[Finding]) -> None:
        self._num_over_limit += len({finding.line for finding in token_findings if finding.rule == "over_context"})
        findings = self._systems.held_back(batch.findings) + token_findings
        self._num_rows += len(batch.numbers)
        if batch.numbers:  # else the file is no text at all
            self._num_bad_rows += len({finding.line for finding in findings if RULES[finding.rule].severity == "error"})
        self._note(sorted(findings, key=lambda finding: finding.line or 0))

    def conclude(self, validation: Path | None) -> None:
        """The rules that need the whole file."""
        is_read = self._num_rows or not self._log.count("error")
        self._note(size_findings(self._num_rows) if is_read else ())
        self._note(self._systems.findings())
        self._note(kind_findings(self._kind))
        if self._content is None:
            return
        self._note(self._content.findings())
        if validation is not None:
            self._note(self._content.leaks(validation, self._kind))

    def report(self, path: Path, target: _Target | None, table: TokenTable | None) -> DatasetReport:
        content = self._content
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return DatasetReport(
            filename=path.name,
            sha256=sha256,
            num_bytes=path.stat().st_size,
            kind=self._kind,
            num_rows=self._num_rows,
            num_bad_rows=self._num_bad_rows,
            verdict=self._verdict(),
            num_errors=self._log.count("error"),
            num_warnings=self._log.count("warning"),
            num_hints=self._log.count("hint"),
            groups=self._log.groups(can_drop=self._num_bad_rows < self._num_rows),
            tokens=target.stats(table, self._num_over_limit) if target is not None and table is not None else None,
            labels=content.labels.counts() if content is not None else None,
            languages=content.languages.counts() if content is not None else {},
            messages_per_row=dict(sorted(self._messages.items())),
            skipped=list(self._skipped(target)),
        )

    def _note(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._log.add(finding)

    def _verdict(self) -> Verdict:
        if self._log.count("error"):
            return "errors"
        return "warnings" if self._log.count("warning") else "good"

    def _skipped(self, target: _Target | None) -> Iterator[Skipped]:
        if target is None and self._kind is not None:
            yield Skipped(rule="over_context", reason="No model was named or installed: tokens were not counted.")
        for rule in self._content.rules if self._content is not None else ():
            yield from rule.skipped()

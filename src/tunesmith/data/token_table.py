"""Tokens of a file, one entry a row: what counts, prices, cuts and proves a run without the tokens themselves."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import DataError
from tunesmith.data.digest import ROW_DIGEST_BYTES, row_digest, set_digest
from tunesmith.data.findings import Finding
from tunesmith.data.formats import Row
from tunesmith.data.prefixes import PrefixCounter
from tunesmith.data.token_findings import oversized_finding, refused_finding, token_findings
from tunesmith.data.tokens import RowTokenizer, TokenSequence

SHARED_BATCH_ROWS = 16
"""Rows of the batches that shared prefixes are counted in."""

Ints = npt.NDArray[np.int64]


class TokenTable(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """N rows that could be tokenised, in file order."""

    lines: Ints
    """(N,) line numbers, from 1."""
    num_tokens: Ints
    """(N,) tokens of all sequences of the row: what one pass over it is billed for."""
    num_supervised: Ints
    """(N,) tokens of them that are learned."""
    longest: Ints
    """(N,) tokens of the row's longest sequence: what must fit the context."""
    digests: npt.NDArray[np.uint8]
    """(N, 16) ``digest.row_digest`` of each row."""
    num_bad_rows: int
    """Rows that could not be read or tokenised, or of which nothing is learned; they have no entry."""
    shared_prefix_tokens: int
    """Tokens that need not be computed in batches of ``SHARED_BATCH_ROWS`` rows in file order."""

    @property
    def num_rows(self) -> int:
        return len(self.lines)

    def __eq__(self, other: object) -> bool:
        """The same tokens row by row, on whatever lines."""
        return isinstance(other, TokenTable) and self.digest() == other.digest()

    __hash__ = None  # type: ignore[assignment]

    def fits(self, limit: int) -> bool:
        """Whether every row of the file has an entry and none is longer than ``limit`` tokens."""
        return self.num_bad_rows == 0 and bool((self.longest <= limit).all())

    def digest(self, rows: Sequence[int] | None = None) -> str:
        """The ``digest.set_digest`` of these rows (places in the table, from 0), or of all."""
        chosen = self.digests if rows is None else self.digests[np.asarray(rows, dtype=np.int64)]
        return set_digest([chosen.tobytes()])


class TokenBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows of a table in a form that travels between processes, and what the token rules say of them."""

    numbers: bytes
    """(rows, 4) int64: line, tokens, supervised tokens, tokens of the longest sequence."""
    digests: bytes
    num_bad_rows: int
    shared_prefix_tokens: int
    findings: list[Finding]


class TableBuilder:
    """Makes a table row by row, or from blocks. Memory: some 50 bytes a row.

    Prefixes are shared in batches of ``SHARED_BATCH_ROWS`` rows, and never across the end of a block.
    """

    def __init__(self, tokenizer: RowTokenizer | None = None, limit: int = 0):
        """Without a tokenizer it takes blocks only."""
        self._tokenizer = tokenizer
        self._limit = limit
        self._numbers: list[npt.NDArray[np.int64]] = []
        self._block: list[tuple[int, int, int, int]] = []
        self._digests = bytearray()
        self._num_bad_rows = 0
        self._num_shared_tokens = 0
        self._prefixes = PrefixCounter(SHARED_BATCH_ROWS)

    def add(self, row: Row | None, line: int, num_bytes: int) -> list[Finding]:
        """Tokenise a row of ``num_bytes``; None is a row that could not be read. Returns what is wrong with it."""
        if row is None:
            self._add_bad()
            return []
        try:
            return self.add_or_raise(row, line, num_bytes)
        except DataError as error:
            self._add_bad()
            return [refused_finding(error, line)]

    def add_or_raise(self, row: Row, line: int, num_bytes: int) -> list[Finding]:
        """The same; raises DataError where ``encode_row`` refuses the row, which then has no place in the table."""
        assert self._tokenizer is not None
        oversized = oversized_finding(num_bytes, self._limit, line)
        if oversized is not None:
            self._add_bad()
            return [oversized]
        sequences = self._tokenizer.encode_row(row, line)
        findings = token_findings(row, sequences, line, limit=self._limit, tokenizer=self._tokenizer)
        if any(finding.rule == "zero_supervised_tokens" for finding in findings):
            self._add_bad()
        else:
            self._count(sequences, line)
        return findings

    def absorb(self, block: TokenBlock) -> None:
        """Add the rows of a block behind those that are there."""
        self._close_block()
        self._numbers.append(np.frombuffer(block.numbers, np.int64).reshape(-1, 4))
        self._digests += block.digests
        self._num_bad_rows += block.num_bad_rows
        self._num_shared_tokens += block.shared_prefix_tokens

    def block(self, findings: list[Finding]) -> TokenBlock:
        """All rows so far."""
        return TokenBlock(
            numbers=self._all_numbers().tobytes(),
            digests=bytes(self._digests),
            num_bad_rows=self._num_bad_rows,
            shared_prefix_tokens=self._num_shared_tokens + self._prefixes.num_shared_tokens,
            findings=findings,
        )

    def table(self) -> TokenTable:
        numbers = self._all_numbers()
        return TokenTable(
            lines=numbers[:, 0],
            num_tokens=numbers[:, 1],
            num_supervised=numbers[:, 2],
            longest=numbers[:, 3],
            digests=np.frombuffer(bytes(self._digests), np.uint8).reshape(-1, ROW_DIGEST_BYTES),
            num_bad_rows=self._num_bad_rows,
            shared_prefix_tokens=self._num_shared_tokens + self._prefixes.num_shared_tokens,
        )

    def _add_bad(self) -> None:
        self._num_bad_rows += 1
        self._prefixes.add([])  # it has its place in a batch: which rows share one depends on the file alone

    def _count(self, sequences: list[TokenSequence], line: int) -> None:
        lengths = [len(sequence.token_ids) for sequence in sequences]
        supervised = sum(sequence.num_supervised_tokens for sequence in sequences)
        self._block.append((line, sum(lengths), supervised, max(lengths)))
        self._digests += row_digest(sequences)
        self._prefixes.add(sequences)
        if len(self._block) >= 4096:
            self._close_block()

    def _all_numbers(self) -> npt.NDArray[np.int64]:
        self._close_block()
        return np.concatenate(self._numbers) if self._numbers else np.empty((0, 4), np.int64)

    def _close_block(self) -> None:
        if self._block:
            self._numbers.append(np.array(self._block, np.int64))
            self._block = []

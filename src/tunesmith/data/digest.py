"""What was trained on, as one number: SHA-256 over token ids and marks, row by row.

A job records the digests of its training and validation rows when it is checked; the trainer makes them again from
what it is about to train on, and stops when they differ.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence

import msgspec

from tunesmith.data.tokens import TokenSequence

ROW_DIGEST_BYTES = 16
TOKEN_BYTES = 4


class PackedSequence(msgspec.Struct, frozen=True):
    """A token sequence as bytes, to be hashed, searched and compared at the machine's own speed."""

    ids: bytes
    """int32, little-endian."""
    marks: bytes
    """One byte a token, 1 where it is learned."""

    @property
    def num_tokens(self) -> int:
        return len(self.marks)

    @property
    def num_supervised_tokens(self) -> int:
        return self.marks.count(1)


def pack(sequence: TokenSequence) -> PackedSequence:
    ids = sequence.token_ids
    return PackedSequence(struct.pack(f"<{len(ids)}i", *ids), bytes(sequence.is_trained))


def row_digest(sequences: Sequence[PackedSequence]) -> bytes:
    """The first 16 bytes of SHA-256 over, for each sequence: its length (int32, little-endian), its ids, its marks."""
    parts = [(struct.pack("<i", len(packed.marks)), packed.ids, packed.marks) for packed in sequences]
    return hashlib.sha256(b"".join(part for three in parts for part in three)).digest()[:ROW_DIGEST_BYTES]


def set_digest(rows: Iterable[bytes]) -> str:
    """SHA-256 over the rows' digests in their order, in hexadecimal."""
    return hashlib.sha256(b"".join(rows)).hexdigest()

"""What was trained on, as one number: SHA-256 over token ids and marks, row by row.

A job records the digests of its training and validation rows when it is checked; the trainer makes them again from
what it is about to train on, and stops when they differ. Numbers are in the machine's byte order.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence

from tunesmith.data.tokens import TokenSequence

ROW_DIGEST_BYTES = 16


def row_digest(sequences: Sequence[TokenSequence]) -> bytes:
    """The first 16 bytes of SHA-256 over, for each sequence: its length (int32), its ids (int32), its marks (bytes)."""
    parts: list[bytes] = []
    for sequence in sequences:
        parts += (struct.pack("i", len(sequence.is_trained)), sequence.token_ids.tobytes(), sequence.is_trained)
    return hashlib.sha256(b"".join(parts)).digest()[:ROW_DIGEST_BYTES]


def set_digest(rows: Iterable[bytes]) -> str:
    """SHA-256 over the rows' digests in their order, in hexadecimal."""
    return hashlib.sha256(b"".join(rows)).hexdigest()

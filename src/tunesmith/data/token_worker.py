"""A process that tokenises batches of rows: ``python -m tunesmith.data.token_worker``, started by ``token_counter``.

Frames of MessagePack come on stdin, each after its length: first an ``Order``, then ``RowBatch``es. Each batch is
answered on stdout with a frame that holds a ``TokenBlock``. It ends when its input does, so with its parent.
"""

import os
import struct
import sys
from typing import IO

import msgspec

from tunesmith.data.findings import Finding
from tunesmith.data.formats import decode_any
from tunesmith.data.rows import Kind
from tunesmith.data.token_table import TableBuilder, TokenBlock
from tunesmith.data.tokens import RowTokenizer, TokenizerRecipe

_LENGTH = struct.Struct("<I")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to tokenise with. ``texts`` are a sample of the file, to prove the fast ways on."""

    recipe: TokenizerRecipe
    limit: int
    texts: list[str]


class RowBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were read without an error; one that was not is empty."""

    kind: Kind
    numbers: list[int]
    raws: list[bytes]


def main() -> None:
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write between our frames
    first = read_frame(requests)
    if first is None:
        return
    order = msgspec.msgpack.decode(first, type=Order)
    tokenizer = RowTokenizer.from_recipe(order.recipe)
    tokenizer.prove(order.texts)
    decoder = msgspec.msgpack.Decoder(RowBatch)
    while (frame := read_frame(requests)) is not None:
        block = _tokenise(decoder.decode(frame), tokenizer, order.limit)
        write_frame(replies, msgspec.msgpack.encode(block))


def _tokenise(batch: RowBatch, tokenizer: RowTokenizer, limit: int) -> TokenBlock:
    builder = TableBuilder(tokenizer, limit)
    findings: list[Finding] = []
    for line, raw in zip(batch.numbers, batch.raws, strict=True):
        row = decode_any(raw, line, batch.kind) if raw else None
        findings += builder.add(row, line, len(raw))
    return builder.block(findings)


def read_frame(file: IO[bytes]) -> bytes | None:
    """The next frame; None at the end, also in the middle of a frame."""
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = file.read(length)
    return body if len(body) == length else None


def write_frame(file: IO[bytes], body: bytes) -> None:
    file.write(_LENGTH.pack(len(body)))
    file.write(body)
    file.flush()


if __name__ == "__main__":
    main()

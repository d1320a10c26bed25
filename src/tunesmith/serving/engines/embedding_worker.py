"""The child process of the embedding engine: ``python -m tunesmith.serving.engines.embedding_worker``.

Reads one line of JSON (``WorkerConfig``) from stdin, loads the model and answers with a line of JSON (``WorkerReady``
or ``WorkerFailed``). Then each line on stdin is a JSON list of texts; the answer is a line of JSON (``WorkerAnswer``)
and after it the numbers: float32, little endian, row after row. It ends when stdin does. Messages go to stderr.

A text's vector is the mean of its tokens' last hidden states, scaled to length 1: what sentence-transformers does with
this model. Tokens after the 256th are not seen.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunesmith.serving.engines.child import die_with

MAX_TOKENS = 256
"""``max_seq_length`` of the model's sentence_bert_config.json."""

BATCH_TOKENS = 4096
"""Padded tokens of one pass: some 60 MB of activations."""


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    parent_pid: int
    model_dir: str
    num_threads: int


class WorkerReady(msgspec.Struct, frozen=True, tag="ready", tag_field="state"):
    num_dims: int


class WorkerFailed(msgspec.Struct, frozen=True, tag="failed", tag_field="state"):
    message: str


class WorkerAnswer(msgspec.Struct, frozen=True):
    """What follows: ``num_rows`` times ``num_dims`` numbers."""

    num_rows: int


def main() -> None:
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries must not write between our lines
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerConfig)
    die_with(config.parent_pid)
    try:
        encoder = TextEncoder(Path(config.model_dir), config.num_threads)
    except (OSError, ValueError, RuntimeError) as error:
        _reply(replies, WorkerFailed(str(error)))
        sys.exit(1)
    _reply(replies, WorkerReady(encoder.num_dims))
    for line in sys.stdin.buffer:
        vectors = encoder.encode(msgspec.json.decode(line, type=list[str]))
        _reply(replies, WorkerAnswer(len(vectors)), vectors.astype("<f4").tobytes())


def _reply(replies: BinaryIO, answer: msgspec.Struct, numbers: bytes = b"") -> None:
    replies.write(msgspec.json.encode(answer) + b"\n" + numbers)
    replies.flush()


class TextEncoder:
    """The model in this process."""

    def __init__(self, folder: Path, num_threads: int):
        import torch
        from tokenizers import Tokenizer
        from transformers import BertModel

        torch.set_num_threads(num_threads)
        self._torch = torch
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._model: Any = BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
        self.num_dims = int(self._model.config.hidden_size)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """(number of texts, ``num_dims``), each row of length 1."""
        token_ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        vectors = np.empty((len(texts), self.num_dims), np.float32)
        for rows in _batches([len(ids) for ids in token_ids]):
            vectors[rows] = self._embed([token_ids[row] for row in rows])
        return vectors

    def _embed(self, token_ids: list[list[int]]) -> NDArray[np.float32]:
        torch = self._torch
        length = max(map(len, token_ids))
        ids_BT = torch.tensor([ids + [0] * (length - len(ids)) for ids in token_ids])
        mask_BT = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in token_ids])
        with torch.inference_mode():
            hidden_BTd = self._model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
            weight_BT1 = mask_BT.unsqueeze(-1).to(hidden_BTd.dtype)
            mean_Bd = (hidden_BTd * weight_BT1).sum(1) / weight_BT1.sum(1)
            unit_Bd = torch.nn.functional.normalize(mean_Bd, dim=1)
        numbers: NDArray[np.float32] = unit_Bd.numpy()
        return numbers


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Rows of similar length together, so that little is padded."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


if __name__ == "__main__":
    main()

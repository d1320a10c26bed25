"""Rows of a step flattened into one sequence in which every shared prefix stands once.

Legend: T distinct tokens of the flattened sequence, S supervised tokens, R rows.

The rows form a prefix tree, laid out depth first. A token at flattened index i may see index j exactly when j is its
ancestor or itself: ``j <= i and i < subtree_end[j]``. That one rule is the whole attention mask. Positions continue
down the tree, so each row sees what it would see alone: same loss, same gradients, up to the order of sums.
Sources: Prefix Grouper (arXiv 2506.05433), Tree Training (arXiv 2511.00413).
"""

from array import array
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from tunesmith.data.steps import common_length
from tunesmith.data.tokens import TokenSequence

IntArray = npt.NDArray[np.int64]


class PackedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One micro-batch. Every tensor is int64 and on the CPU."""

    token_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    subtree_end_T: IntArray
    """Flattened index one past the last token that may see this one."""
    source_S: torch.Tensor
    """Flattened index whose hidden state predicts the supervised token."""
    target_S: torch.Tensor
    """Id of the supervised token."""
    row_S: torch.Tensor
    """Which row of the micro-batch the supervised token belongs to."""
    lines: list[int]
    """File line of each row."""
    num_row_tokens: int
    """Tokens of all rows, before sharing."""

    @property
    def num_rows(self) -> int:
        return len(self.lines)


class _Node:
    """A run of tokens shared by the same rows. The last token of a row predicts nothing and is no input."""

    __slots__ = ("children", "rows", "token_ids")

    def __init__(self, token_ids: "array[int]"):
        self.token_ids = token_ids
        self.children: dict[int, _Node] = {}
        self.rows: list[int] = []


def pack(sequences: Sequence[TokenSequence], *, share_prefixes: bool = True) -> PackedBatch:
    """Flatten rows into one sequence. Without sharing each row stands alone (the peer in the exactness tests)."""
    root = _Node(array("i"))
    for row, sequence in enumerate(sequences):
        inputs = sequence.token_ids[:-1]
        if share_prefixes:
            _insert(root, inputs, row)
        else:
            node = root.children[-1 - row] = _Node(inputs)
            node.rows.append(row)
    layout = _Layout(len(sequences))
    layout.place(root, 0, [])
    return layout.packed(sequences)


def _insert(node: _Node, inputs: "array[int]", row: int) -> None:
    start = 0
    while start < len(inputs):
        child = node.children.get(inputs[start])
        if child is None:
            child = _Node(inputs[start:])
            node.children[inputs[start]] = child
            node = child
            break
        shared = common_length(child.token_ids, inputs, start)
        if shared < len(child.token_ids):
            child = _split(node, child, shared)
        node, start = child, start + shared
    node.rows.append(row)


def _split(parent: _Node, child: _Node, at: int) -> _Node:
    """Cut ``child`` in two after ``at`` tokens; returns the upper part."""
    upper = _Node(child.token_ids[:at])
    child.token_ids = child.token_ids[at:]
    upper.children[child.token_ids[0]] = child
    parent.children[upper.token_ids[0]] = upper
    return upper


class _Layout:
    """Depth-first placement of the tree, and for each row the flattened indices of its tokens."""

    def __init__(self, num_rows: int):
        self.token_ids: list[int] = []
        self.position_ids: list[int] = []
        self.subtree_end: list[int] = []
        self.row_indices: list[list[int]] = [[] for _ in range(num_rows)]

    def place(self, node: _Node, depth: int, path: list[int]) -> None:
        start = len(self.token_ids)
        length = len(node.token_ids)
        self.token_ids += node.token_ids
        self.position_ids += range(depth, depth + length)
        self.subtree_end += [0] * length
        path = path + list(range(start, start + length))
        for row in node.rows:
            self.row_indices[row] = path
        for child in node.children.values():
            self.place(child, depth + length, path)
        self.subtree_end[start : start + length] = [len(self.token_ids)] * length

    def packed(self, sequences: Sequence[TokenSequence]) -> PackedBatch:
        source: list[int] = []
        target: list[int] = []
        rows: list[int] = []
        for row, sequence in enumerate(sequences):
            indices = self.row_indices[row]
            for t in range(1, len(sequence.token_ids)):
                if sequence.is_trained[t]:
                    source.append(indices[t - 1])
                    target.append(sequence.token_ids[t])
                    rows.append(row)
        return PackedBatch(
            token_ids_T=torch.tensor(self.token_ids),
            position_ids_T=torch.tensor(self.position_ids),
            subtree_end_T=np.asarray(self.subtree_end, dtype=np.int64),
            source_S=torch.tensor(source),
            target_S=torch.tensor(target),
            row_S=torch.tensor(rows),
            lines=[sequence.line for sequence in sequences],
            num_row_tokens=sum(len(sequence.token_ids) for sequence in sequences),
        )

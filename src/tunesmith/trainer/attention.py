"""Attention over a prefix tree, without a dense mask: plain SDPA on blocks of the flattened sequence.

Legend: T flattened tokens, Q queries of a block, K keys a block sees, H query heads, G query heads per key head, D head
size. A block is a run of flattened tokens; its keys are its ancestors and itself. Blocks that are one plain chain use
the causal kernel; others get a small mask. Which neighbours share a block is a matter of cost, never of result.

Registered with transformers under ``tunesmith``, so no model code is changed.
"""

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from transformers import AttentionInterface

from tunesmith.trainer.batch import IntArray, PackedBatch

NAME = "tunesmith"
_CALL_COST_PAIRS = 4000
"""A kernel call costs about as much as this many query-key pairs (2 cores, SmolLM2's heads)."""

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Queries start..end see the keys ``keys_K``: a slice where they are neighbours, else indices."""

    start: int
    end: int
    key_slice: slice | None
    keys_K: torch.Tensor | None
    mask_Q_K: torch.Tensor | None
    """Minus infinity where a query must not see a key, else zero; None for a plain causal chain."""


class AttentionPlan(msgspec.Struct, frozen=True, kw_only=True):
    blocks: list[Block]


def plan_attention(batch: PackedBatch, dtype: torch.dtype, *, window: int | None = None) -> AttentionPlan:
    """Blocks for one micro-batch of a model of this type. ``window`` is its sliding window in tokens, if it has one."""
    ends = batch.subtree_end_T
    positions = batch.position_ids_T.numpy()
    starts = _block_starts(ends)
    return AttentionPlan(blocks=[_block(ends, positions, a, b, window, dtype) for a, b in starts])


def _block_starts(ends: IntArray) -> list[tuple[int, int]]:
    """Cut where the tree branches, then join neighbours as long as that costs less than another call."""
    num_tokens = len(ends)
    cuts = [0, *(int(i) for i in np.flatnonzero(np.diff(ends)) + 1), num_tokens]
    blocks: list[tuple[int, int]] = []
    for start, end in pairwise(cuts):
        if blocks:
            last_start, last_end = blocks[-1]
            joined = _cost(ends, last_start, end)
            if joined <= _cost(ends, last_start, last_end) + _cost(ends, start, end):
                blocks[-1] = (last_start, end)
                continue
        blocks.append((start, end))
    return blocks


def _cost(ends: IntArray, start: int, end: int) -> int:
    num_keys = int(np.count_nonzero(ends[:start] > start)) + end - start
    return (end - start) * num_keys + _CALL_COST_PAIRS


def _block(ends: IntArray, positions: IntArray, start: int, end: int, window: int | None, dtype: torch.dtype) -> Block:
    keys = np.concatenate([np.flatnonzero(ends[:start] > start), np.arange(start, end)])
    queries = np.arange(start, end)[:, None]
    hidden = (keys[None, :] > queries) | (queries >= ends[keys][None, :])
    if window is not None:
        hidden |= positions[start:end, None] - positions[keys][None, :] >= window
    is_causal = len(keys) == end - start and bool((hidden == ~np.tri(len(keys), dtype=bool)).all())
    is_slice = int(keys[-1] - keys[0]) + 1 == len(keys)
    return Block(
        start=start,
        end=end,
        key_slice=slice(int(keys[0]), end) if is_slice else None,
        keys_K=None if is_slice else torch.from_numpy(keys),
        mask_Q_K=None if is_causal else _mask(hidden, dtype),
    )


def _mask(hidden_Q_K: npt.NDArray[np.bool_], dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(hidden_Q_K.shape, dtype=dtype).masked_fill_(torch.from_numpy(hidden_Q_K), float("-inf"))


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plans: dict[int | None, AttentionPlan],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [1, H, T, D], key and value [1, H/G, T, D] -> [1, T, H, D].

    ``plans`` holds the plan of this micro-batch for each sliding window that the model's layers use.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out_T_H_D = _TreeAttention.apply(  # type: ignore[no-untyped-call]
        query[0], key[0], value[0], plans[sliding_window], scale
    )
    return out_T_H_D.unsqueeze(0), None


class _TreeAttention(torch.autograd.Function):
    """The backward adds each block's key gradients in place: what a shared prefix gets from all its branches."""

    @staticmethod
    def forward(
        ctx: Any, q_H_T_D: torch.Tensor, k_N_T_D: torch.Tensor, v_N_T_D: torch.Tensor, plan: AttentionPlan, scale: float
    ) -> torch.Tensor:
        num_heads, num_tokens, _ = q_H_T_D.shape
        out_T_H_D = q_H_T_D.new_empty(num_tokens, num_heads, v_N_T_D.shape[-1])
        sums = []
        for block in plan.blocks:
            q, k, v, mask = _block_inputs(block, q_H_T_D, k_N_T_D, v_N_T_D)
            out, log_sum = _forward(q, k, v, 0.0, mask is None, attn_mask=mask, scale=scale)
            out_T_H_D[block.start : block.end] = out.flatten(0, 1).transpose(0, 1)
            sums.append(log_sum)
        ctx.save_for_backward(q_H_T_D, k_N_T_D, v_N_T_D, out_T_H_D, *sums)
        ctx.plan, ctx.scale = plan, scale
        return out_T_H_D

    @staticmethod
    def backward(ctx: Any, grad_T_H_D: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *saved, out_T_H_D = ctx.saved_tensors[:4]
        sums = ctx.saved_tensors[4:]
        kind = torch.promote_types(grad_T_H_D.dtype, torch.float32)  # the kernel's half-precision backward is slower
        q_H_T_D, k_N_T_D, v_N_T_D, out_T_H_D, grad_T_H_D = (t.to(kind) for t in (*saved, out_T_H_D, grad_T_H_D))
        num_groups = k_N_T_D.shape[0]
        grad_q = torch.empty_like(q_H_T_D)
        grad_k, grad_v = torch.zeros_like(k_N_T_D), torch.zeros_like(v_N_T_D)
        for block, log_sum in zip(ctx.plan.blocks, sums, strict=True):
            span = slice(block.start, block.end)
            q, k, v, mask = _block_inputs(block, q_H_T_D, k_N_T_D, v_N_T_D)
            mask = None if mask is None else mask.to(kind)
            grad = grad_T_H_D[span].transpose(0, 1).unflatten(0, (num_groups, -1))
            out = out_T_H_D[span].transpose(0, 1).unflatten(0, (num_groups, -1))
            dq, dk, dv = _backward(grad, q, k, v, out, log_sum, 0.0, mask is None, attn_mask=mask, scale=ctx.scale)
            grad_q[:, span] = dq.flatten(0, 1)
            _add(grad_k, block, dk.sum(1))
            _add(grad_v, block, dv.sum(1))
        given = saved[0].dtype
        return grad_q.to(given), grad_k.to(given), grad_v.to(given), None, None


def _block_inputs(
    block: Block, q_H_T_D: torch.Tensor, k_N_T_D: torch.Tensor, v_N_T_D: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Query [N, G, Q, D], key and value [N, G, K, D] without copying a key for each of its G query heads."""
    groups = q_H_T_D.shape[0] // k_N_T_D.shape[0]
    q = q_H_T_D[:, block.start : block.end].unflatten(0, (-1, groups))
    k, v = _keys(k_N_T_D, block, groups), _keys(v_N_T_D, block, groups)
    return q, k, v, None if block.mask_Q_K is None else block.mask_Q_K[None, None]


def _keys(k_N_T_D: torch.Tensor, block: Block, groups: int) -> torch.Tensor:
    chosen = k_N_T_D[:, block.key_slice] if block.keys_K is None else k_N_T_D.index_select(1, block.keys_K)
    return chosen.unsqueeze(1).expand(-1, groups, -1, -1)


def _add(total_N_T_D: torch.Tensor, block: Block, part_N_K_D: torch.Tensor) -> None:
    if block.keys_K is None:
        total_N_T_D[:, block.key_slice] += part_N_K_D
    else:
        total_N_T_D.index_add_(1, block.keys_K, part_N_K_D)


AttentionInterface.register(NAME, tree_attention)

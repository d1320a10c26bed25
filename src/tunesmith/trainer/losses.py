"""The language-model head and its loss, only where there is a label, with the gradient formed in the forward pass.

Legend: S supervised tokens, C tokens of a chunk, d hidden size, V vocabulary. No [S, V] tensor ever exists; a chunk's
logits live once. Sources: Liger-Kernel's fused linear cross-entropy (arXiv 2410.10989), restricted to labels.
"""

from typing import Any, NamedTuple

import torch

CHUNK_TOKENS = 256


class TokenLosses(NamedTuple):
    """``total`` carries the gradient: the sum of all losses times the given scale. The others are plain numbers."""

    total: torch.Tensor
    nll_S: torch.Tensor
    """Negative log-likelihood of each supervised token, in nats, float32 at least."""
    is_correct_S: torch.Tensor
    """Whether the likeliest token was the right one."""


def head_losses(
    hidden_S_d: torch.Tensor, weight_V_d: torch.Tensor, target_S: torch.Tensor, scale: float
) -> TokenLosses:
    """Cross-entropy of ``hidden @ weight.T`` against targets, times ``scale`` (one over the supervised tokens)."""
    total, nll_S, is_correct_S = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden_S_d, weight_V_d, target_S, scale
    )
    return TokenLosses(total, nll_S, is_correct_S)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_S_d: torch.Tensor, weight_V_d: torch.Tensor, target_S: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        accumulate = torch.promote_types(hidden_S_d.dtype, torch.float32)
        nll_S = torch.empty(target_S.shape, dtype=accumulate)
        is_correct_S = torch.empty(target_S.shape, dtype=torch.bool)
        grad_S_d = torch.empty_like(hidden_S_d) if needs_hidden else None
        grad_V_d = torch.zeros_like(weight_V_d) if needs_weight else None
        for start in range(0, len(target_S), CHUNK_TOKENS):
            chunk = slice(start, start + CHUNK_TOKENS)
            hidden_C_d, target_C = hidden_S_d[chunk], target_S[chunk].unsqueeze(1)
            logits_C_V = (hidden_C_d @ weight_V_d.T).to(accumulate)
            target_logit_C = logits_C_V.gather(1, target_C)[:, 0]
            most_C, likeliest_C = logits_C_V.max(-1)
            is_correct_S[chunk] = likeliest_C == target_C[:, 0]
            share_C_V = logits_C_V.sub_(most_C[:, None]).exp_()
            sum_C = share_C_V.sum(-1)
            nll_S[chunk] = sum_C.log() + most_C - target_logit_C
            if grad_S_d is None and grad_V_d is None:
                continue
            grad_C_V = share_C_V.mul_((scale / sum_C)[:, None])
            grad_C_V.scatter_add_(1, target_C, grad_C_V.new_full((), -scale).expand_as(target_C))
            grad_C_V = grad_C_V.to(hidden_S_d.dtype)
            if grad_S_d is not None:
                torch.mm(grad_C_V, weight_V_d, out=grad_S_d[chunk])
            if grad_V_d is not None:
                grad_V_d.addmm_(grad_C_V.T, hidden_C_d)
        ctx.save_for_backward(grad_S_d, grad_V_d)
        ctx.mark_non_differentiable(nll_S, is_correct_S)
        return nll_S.sum() * scale, nll_S, is_correct_S

    @staticmethod
    def backward(ctx: Any, grad_total: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        grad_S_d, grad_V_d = ctx.saved_tensors
        scaled = [None if grad is None else grad * grad_total.to(grad.dtype) for grad in (grad_S_d, grad_V_d)]
        return scaled[0], scaled[1], None, None

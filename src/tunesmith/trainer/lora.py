"""A linear layer with a low-rank update, fused: y = x W^T + s (x A^T) B^T. Format and scale are PEFT's.

Legend: T tokens, i inputs, o outputs, r rank. The product x A^T is saved for the backward pass, and every other product
is added in place, so nothing of size [T, o] is made twice. Source: unsloth's and LoRAFusion's bracket order.
Not covered: dropout (it would break exactness of shared prefixes), biases in the update, embeddings.
"""

import math
from typing import Any

import torch
from torch import nn


class LoraLinear(nn.Module):
    """Takes the place of an ``nn.Linear``; the frozen weight is the same tensor. A and B stay in float32 at least."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, generator: torch.Generator):
        super().__init__()
        self.weight = base.weight.requires_grad_(False)
        self.bias = None if base.bias is None else base.bias.requires_grad_(False)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.scale = scale
        kind = torch.promote_types(base.weight.dtype, torch.float32)
        bound = math.sqrt(1.0 / base.in_features)  # kaiming_uniform_(a=sqrt(5)), PEFT's initial A; B begins at zero
        a_r_i = torch.rand(rank, base.in_features, generator=generator, dtype=torch.float32) * 2 * bound - bound
        self.lora_A = nn.Parameter(a_r_i.to(kind).to(base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, dtype=kind, device=base.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., i] -> [..., o]."""
        a_r_i, b_o_r = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        y: torch.Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), self.weight, self.bias, a_r_i, b_o_r, self.scale
        )
        return y.view(*x.shape[:-1], self.out_features)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_T_i: torch.Tensor,
        w_o_i: torch.Tensor,
        bias_o: torch.Tensor | None,
        a_r_i: torch.Tensor,
        b_o_r: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        y_T_o, h_T_r = lora_forward(x_T_i, w_o_i, a_r_i, b_o_r, scale, bias_o)
        ctx.save_for_backward(x_T_i, h_T_r, w_o_i, a_r_i, b_o_r)
        ctx.scale = scale
        return y_T_o

    @staticmethod
    def backward(ctx: Any, grad_T_o: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_T_i, h_T_r, w_o_i, a_r_i, b_o_r = ctx.saved_tensors
        grad_x, grad_a, grad_b = lora_backward(
            grad_T_o, x_T_i, h_T_r, w_o_i, a_r_i, b_o_r, ctx.scale, needs_x=ctx.needs_input_grad[0]
        )
        return grad_x, None, None, grad_a, grad_b, None


def lora_forward(
    x_T_i: torch.Tensor,
    w_o_i: torch.Tensor,
    a_r_i: torch.Tensor,
    b_o_r: torch.Tensor,
    scale: float,
    bias_o: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(y [T, o], x A^T [T, r] for the backward pass)."""
    h_T_r = x_T_i @ a_r_i.T
    y_T_o = nn.functional.linear(x_T_i, w_o_i, bias_o)
    return y_T_o.addmm_(h_T_r, b_o_r.T, alpha=scale), h_T_r


def lora_backward(
    grad_T_o: torch.Tensor,
    x_T_i: torch.Tensor,
    h_T_r: torch.Tensor,
    w_o_i: torch.Tensor,
    a_r_i: torch.Tensor,
    b_o_r: torch.Tensor,
    scale: float,
    *,
    needs_x: bool = True,
    add_to: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Gradients of x (added in place to ``add_to``, if given), A and B."""
    g_T_r = grad_T_o @ b_o_r
    grad_x = None
    if needs_x:
        grad_x = grad_T_o @ w_o_i if add_to is None else add_to.addmm_(grad_T_o, w_o_i)
        grad_x.addmm_(g_T_r, a_r_i, alpha=scale)
    grad_b_r_o = (h_T_r.T @ grad_T_o).mul_(scale)  # three times as fast as its transpose
    return grad_x, (g_T_r.T @ x_T_i).mul_(scale), grad_b_r_o.T

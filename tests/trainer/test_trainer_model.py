"""Which parts of a model are exchanged, and what a run computes in."""

from pathlib import Path

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from tunesmith.core.errors import TrainerError
from tunesmith.trainer import attention, measure
from tunesmith.trainer.lora import LoraLinear
from tunesmith.trainer.losses import CHUNK_TOKENS, head_losses
from tunesmith.trainer.measure import choose_dtype
from tunesmith.trainer.mlp import GatedMlp
from tunesmith.trainer.model import load_model, wrap_model
from tunesmith.trainer.norm import RmsNorm

EXCHANGED = {"llama": (2, 5), "qwen2": (2, 5), "qwen3": (2, 9), "mistral": (2, 5), "gemma": (0, 0), "phi": (0, 0)}


@pytest.mark.parametrize("shape", sorted(tiny.SHAPES))
def test_what_computes_the_same_is_exchanged(shape: str, tmp_path: Path) -> None:
    base = tiny.make_tiny_base(tmp_path / "base", shape)
    spec = tiny.make_run(tmp_path / "run", base)
    trained = wrap_model(AutoModelForCausalLM.from_pretrained(base, attn_implementation=attention.NAME), spec)
    parts = list(trained.model.modules())
    counts = tuple(sum(isinstance(part, kind) for part in parts) for kind in (GatedMlp, RmsNorm))
    assert counts == EXCHANGED[shape]
    num_linears = sum(isinstance(part, LoraLinear) for part in parts)
    assert num_linears == (12 if shape == "phi" else 14)
    assert len(list(trained.named_parameters())) == 2 * num_linears


def test_a_model_that_changes_its_logits_is_refused(tmp_path: Path) -> None:
    base = tiny.make_tiny_base(tmp_path / "base")
    config = msgspec.json.decode((base / "config.json").read_bytes())
    (base / "config.json").write_bytes(msgspec.json.encode(config | {"logit_scale": 0.25}))
    with pytest.raises(TrainerError, match="logit_scale"):
        load_model(tiny.make_run(tmp_path / "run", base), torch.float32)


@pytest.mark.parametrize(("float32", "bfloat16", "chosen"), [(300.0, 160.0, "float32"), (400.0, 2900.0, "bfloat16")])
def test_the_probe_decides(monkeypatch: pytest.MonkeyPatch, float32: float, bfloat16: float, chosen: str) -> None:
    """With the rates of two real processors, one without matrix tiles and one with them."""
    rates = {torch.float32: float32 * 1e9, torch.bfloat16: bfloat16 * 1e9}
    monkeypatch.setattr(measure, "gemm_rate", lambda dtype, *_: rates[dtype])
    choice = choose_dtype("auto", 576, 1536)
    assert choice.name == chosen
    assert f"{float32:.0f} GFLOP/s in float32" in choice.reason
    assert choose_dtype("float64", 576, 1536).dtype == torch.float64


def test_the_real_probe_measures_something() -> None:
    assert measure.gemm_rate(torch.float32, 64, 64, 64) > 1e6


@pytest.mark.parametrize("num_tokens", [1, CHUNK_TOKENS, CHUNK_TOKENS + 3])
def test_the_head_is_cross_entropy(num_tokens: int) -> None:
    """Loss, accuracy and both gradients are those of torch's own, also when the head itself is learned."""
    torch.manual_seed(num_tokens)
    hidden = torch.randn(num_tokens, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    target = torch.randint(50, (num_tokens,))
    losses = head_losses(hidden, weight, target, 1 / num_tokens)
    mine = torch.autograd.grad(losses.total, (hidden, weight))
    logits = hidden @ weight.T
    loss = torch.nn.functional.cross_entropy(logits, target)
    theirs = torch.autograd.grad(loss, (hidden, weight))
    torch.testing.assert_close(losses.total, loss, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)
    assert torch.equal(losses.is_correct_S, logits.argmax(-1) == target)

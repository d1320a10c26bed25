"""Padded Hugging Face with PEFT, rows alone, and the shared-prefix tree compute the same loss and the same gradients.

In float64 the norms are patched, since transformers computes them in float32 whatever the model's type.
"""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

import tiny
from tiny import SHAPES
from tunesmith.data.formats import decode_row
from tunesmith.data.steps import micro_batches
from tunesmith.data.tokens import RowTokenizer, TokenSequence
from tunesmith.trainer import attention, checkpoint
from tunesmith.trainer.batch import pack
from tunesmith.trainer.checkpoint import RunState
from tunesmith.trainer.model import TrainedModel, wrap_model

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}


@pytest.fixture(scope="session", params=sorted(SHAPES))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tiny_base(tmp_path_factory.mktemp("bases") / request.param, request.param)


def load(folder: Path, dtype: torch.dtype, implementation: str) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=implementation).eval()
    if dtype == torch.float64:
        for part in model.modules():
            if type(part).__name__.endswith("RMSNorm"):
                part.forward = exact_norm(part)
    return model


def exact_norm(norm: nn.Module):
    """The norm of Llama's family in the model's own type; Gemma's weight counts from one."""
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    offset = 1.0 if "Gemma" in type(norm).__name__ else 0.0
    return lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (norm.weight + offset)


def sequences_of(base: Path, lines: list[bytes]) -> list[TokenSequence]:
    tokenizer = RowTokenizer.from_dir(base)
    return [s for n, raw in enumerate(lines, start=1) for s in tokenizer.encode_row(decode_row(raw, n), n)]


def ours(base: Path, dtype: torch.dtype, run_dir: Path) -> TrainedModel:
    """Our model with a random adapter; its checkpoint is in ``run_dir``."""
    spec = tiny.make_run(run_dir, base)
    trained = wrap_model(load(base, dtype, attention.NAME), spec)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    optimizer = torch.optim.AdamW([parameter for _, parameter in trained.named_parameters()])
    checkpoint.save_checkpoint(run_dir, spec, trained, optimizer, RunState(step=1))
    return trained


def gradients(
    trained: TrainedModel, pieces: list[list[TokenSequence]], *, share: bool
) -> tuple[float, dict[str, torch.Tensor]]:
    num_supervised = sum(s.num_supervised_tokens for piece in pieces for s in piece)
    for _, parameter in trained.named_parameters():
        parameter.grad = None
    loss = 0.0
    for piece in pieces:
        losses = trained.losses(pack(piece, share_prefixes=share), 1.0 / num_supervised)
        losses.total.backward()
        loss += float(losses.total.detach())
    return loss, {name: parameter.grad for name, parameter in trained.named_parameters()}


def padded_huggingface(base: Path, dtype: torch.dtype, adapter: Path, sequences: list[TokenSequence]):
    model = PeftModel.from_pretrained(load(base, dtype, "sdpa"), adapter, is_trainable=True)
    width = max(len(s.token_ids) for s in sequences)
    ids = torch.tensor([[*s.token_ids] + [0] * (width - len(s.token_ids)) for s in sequences])
    mask = torch.tensor([[1] * len(s.token_ids) + [0] * (width - len(s.token_ids)) for s in sequences])
    labels = torch.tensor(
        [
            [t if learn else -100 for t, learn in zip(s.token_ids, s.is_trained, strict=True)]
            + [-100] * (width - len(s.token_ids))
            for s in sequences
        ]
    )
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert logits.dtype == dtype
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    loss.backward()
    named = {name.replace(".default", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), named


def largest_difference(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert mine.keys() == theirs.keys()
    difference = sum(float((mine[name] - theirs[name]).double().pow(2).sum()) for name in mine)
    return (difference / sum(float(grad.double().pow(2).sum()) for grad in theirs.values())) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_three_paths_agree(base: Path, dtype: torch.dtype, tmp_path: Path) -> None:
    lines = (
        tiny.chat_lines(5)
        + tiny.chat_lines(3, seed=2, turns=3)
        + tiny.chat_lines(2, seed=5, system="")
        + tiny.chat_lines(1)
    )
    sequences = sequences_of(base, lines)
    trained = ours(base, dtype, tmp_path / "run")
    adapter = tmp_path / "run" / "checkpoints" / checkpoint.checkpoint_name(1)
    tree_loss, tree = gradients(trained, [sequences], share=True)
    alone_loss, alone = gradients(trained, [sequences], share=False)
    padded_loss, padded = padded_huggingface(base, dtype, adapter, sequences)
    assert tree_loss == pytest.approx(padded_loss, rel=TOLERANCE[dtype])
    assert alone_loss == pytest.approx(padded_loss, rel=TOLERANCE[dtype])
    assert largest_difference(tree, padded) < TOLERANCE[dtype]
    assert largest_difference(alone, padded) < TOLERANCE[dtype]
    packed = pack(sequences)
    assert len(packed.token_ids_T) < packed.num_row_tokens * 0.8, (
        "the rows share prefixes, so the test compares two paths"
    )


@pytest.mark.parametrize("max_tokens", [1, 60, 150])
def test_micro_batches_change_nothing(base: Path, max_tokens: int, tmp_path: Path) -> None:
    sequences = sequences_of(base, tiny.chat_lines(8) + tiny.chat_lines(2, seed=4, turns=2))
    trained = ours(base, torch.float64, tmp_path / "run")
    pieces = list(micro_batches(sequences, max_tokens))
    assert len(pieces) > 1
    cut_loss, cut = gradients(trained, pieces, share=True)
    whole_loss, whole = gradients(trained, [sequences], share=True)
    assert cut_loss == pytest.approx(whole_loss, rel=1e-12)
    assert largest_difference(cut, whole) < 1e-12

"""The model in training: a transformers causal LM, our attention, LoRA in its linear layers.

Any causal LM of transformers whose layers are plain attention works: its own code runs, only ``nn.Linear`` modules, RMS
norms, gated MLPs and the attention function are exchanged. Not covered: models that change logits after the head,
mixtures of experts with fused expert weights.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tunesmith.core.errors import TrainerError
from tunesmith.core.types import RunSpec
from tunesmith.trainer import attention
from tunesmith.trainer.batch import PackedBatch
from tunesmith.trainer.lora import LoraLinear
from tunesmith.trainer.losses import TokenLosses, head_losses
from tunesmith.trainer.mlp import exchange_mlps
from tunesmith.trainer.norm import exchange_norms

ADAPTER_FILE = "adapter_model.safetensors"
WEIGHTS_FILE = "model.safetensors"
_PEFT_PREFIX = "base_model.model."
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "attn_logit_softcapping")


class TrainedModel:
    """A model with the parameters that are learned, and the one computation that training and evaluation share."""

    def __init__(self, model: PreTrainedModel, *, is_lora: bool):
        self.model = model
        self.is_lora = is_lora
        self._windows = _sliding_windows(model.config)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is learned, by the name it has in a checkpoint, always in the same order."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                yield (_peft_name(name) if self.is_lora else name), parameter

    def losses(self, batch: PackedBatch, scale: float) -> TokenLosses:
        """Losses of the supervised tokens of one micro-batch, their sum times ``scale`` with its gradient."""
        hidden_T_d = self.hidden(batch)
        device = hidden_T_d.device
        return head_losses(hidden_T_d[batch.source_S.to(device)], self.head_weight, batch.target_S.to(device), scale)

    def hidden(self, batch: PackedBatch) -> torch.Tensor:
        """Last hidden states [T, d] of the flattened tokens."""
        device, dtype = self.head_weight.device, self.head_weight.dtype
        plans = {window: attention.plan_attention(batch, dtype, window=window) for window in self._windows}
        out = self.model.base_model(
            input_ids=batch.token_ids_T[None].to(device),
            position_ids=batch.position_ids_T[None].to(device),
            use_cache=False,
            plans=plans,
        )
        hidden_T_d: torch.Tensor = out.last_hidden_state[0]
        return hidden_T_d

    @property
    def head_weight(self) -> torch.Tensor:
        weight: torch.Tensor = self.model.get_output_embeddings().weight
        return weight

    def load(self, folder: Path) -> None:
        """Take the learned parameters of a checkpoint folder. Raises TrainerError when they are another model's."""
        file = folder / (ADAPTER_FILE if self.is_lora else WEIGHTS_FILE)
        tensors = load_file(file)
        mine = dict(self.named_parameters())
        if mine.keys() - tensors.keys() or any(mine[name].shape != tensors[name].shape for name in mine):
            raise TrainerError(
                f"{folder.name} holds other parameters than this run learns.",
                code="checkpoint_mismatch",
                mend="Continue with the same base model, rank and kind of training.",
            )
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(tensors[name])


def load_model(spec: RunSpec, dtype: torch.dtype) -> TrainedModel:
    """The base model with what is learned on top: from ``spec.start_adapter_dir`` if given, else fresh."""
    config = AutoConfig.from_pretrained(spec.base_dir, local_files_only=True)
    _refuse_unknown(config)
    is_lora = spec.training == "lora"
    if not is_lora:
        dtype = torch.promote_types(dtype, torch.float32)  # small updates would vanish in a half-precision weight
    model = AutoModelForCausalLM.from_pretrained(
        spec.base_dir, config=config, dtype=dtype, attn_implementation=attention.NAME, local_files_only=True
    )
    trained = wrap_model(model, spec)
    if spec.start_adapter_dir is not None:
        trained.load(Path(spec.start_adapter_dir))
    return trained


def wrap_model(model: PreTrainedModel, spec: RunSpec) -> TrainedModel:
    """Mark what is learned: LoRA in every linear layer of the body, or every weight."""
    model.eval()  # dropout would make rows of a shared prefix disagree
    exchange_norms(model)
    if spec.training == "lora":
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(spec.seed)
        add_lora(model, rank=spec.lora_r, scale=spec.lora_alpha / spec.lora_r, generator=generator)
        exchange_mlps(model)
    else:
        model.requires_grad_(True)
    return TrainedModel(model, is_lora=spec.training == "lora")


def add_lora(model: PreTrainedModel, *, rank: int, scale: float, generator: torch.Generator) -> None:
    """Exchange every ``nn.Linear`` but the head for one with a low-rank update."""
    head = model.get_output_embeddings()
    linears = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head]
    if not linears:
        raise TrainerError("The model has no linear layers to adapt.", code="model_not_supported")
    for name, linear in linears:
        parent_name, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent_name), attribute, LoraLinear(linear, rank, scale, generator))


def lora_targets(model: PreTrainedModel) -> list[str]:
    """PEFT's ``target_modules``: the last names of the adapted layers."""
    return sorted({name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, LoraLinear)})


def _peft_name(name: str) -> str:
    return _PEFT_PREFIX + name + ".weight"


def _sliding_windows(config: PreTrainedConfig) -> set[int | None]:
    """The windows that the layers use: None for full attention."""
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    if window is None:
        return {None}
    return {None, window} if layer_types is None or "full_attention" in layer_types else {window}


def _refuse_unknown(config: PreTrainedConfig) -> None:
    changed = [name for name in _LOGIT_CHANGES if getattr(config, name, None) not in (None, 1, 1.0)]
    if changed:
        raise TrainerError(
            f"The model's {changed[0]} changes logits in a way the trainer does not compute.",
            code="model_not_supported",
        )

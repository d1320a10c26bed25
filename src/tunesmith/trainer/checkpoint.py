"""Checkpoints: a folder appears whole or not at all, holds no pickle, and is all a run needs to go on bit by bit.

A LoRA checkpoint is a PEFT adapter folder (adapter_model.safetensors, adapter_config.json) with the chat template that
trained it; a full one is a transformers model folder. Beside them lie optimizer.safetensors and state.json.
"""

import hashlib
import os
import shutil
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file

from tunesmith.core.types import CHECKPOINTS_DIR, RunSpec
from tunesmith.trainer.model import ADAPTER_FILE, WEIGHTS_FILE, TrainedModel, lora_targets

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
TEMPLATE_FILE = "chat_template.jinja"
_RNG = "rng_state"


class RunState(msgspec.Struct, kw_only=True):
    """Where a run stands after ``step``; the data position follows from the step (see data.steps)."""

    step: int = 0
    trained_tokens: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    train_rows: list[tuple[int, float, int, int]] = []
    """(line, loss, tokens, correct) of rows trained on since the last evaluation that wrote rows.jsonl."""


def checkpoint_name(step: int) -> str:
    return f"step-{step:06d}"


def save_checkpoint(
    run_dir: Path, spec: RunSpec, trained: TrainedModel, optimizer: torch.optim.Optimizer, state: RunState
) -> Path:
    """Write the checkpoint of ``state.step``; returns its folder."""
    folder = run_dir / CHECKPOINTS_DIR / checkpoint_name(state.step)
    staging = folder.with_name("." + folder.name)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    _save_weights(staging, spec, trained)
    save_file(_optimizer_tensors(trained, optimizer), staging / OPTIMIZER_FILE)
    (staging / STATE_FILE).write_bytes(msgspec.json.encode(state))
    shutil.copyfile(Path(spec.base_dir) / TEMPLATE_FILE, staging / TEMPLATE_FILE)
    for file in staging.iterdir():
        _sync(file)
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    _sync(folder.parent)
    return folder


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the learned weights of a checkpoint folder."""
    weights = folder / ADAPTER_FILE
    with (weights if weights.exists() else folder / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    folders = sorted((run_dir / CHECKPOINTS_DIR).glob("step-*"))
    return folders[-1] if folders else None


def read_state(run_dir: Path) -> RunState:
    """Where the newest checkpoint stands; at the beginning where there is none."""
    newest = latest_checkpoint(run_dir)
    return RunState() if newest is None else msgspec.json.decode((newest / STATE_FILE).read_bytes(), type=RunState)


def resume(folder: Path, trained: TrainedModel, optimizer: torch.optim.Optimizer) -> RunState:
    """Load weights, optimiser and random state of a checkpoint; returns where the run stood."""
    trained.load(folder)
    tensors = load_file(folder / OPTIMIZER_FILE)
    torch.set_rng_state(tensors.pop(_RNG))
    for name, parameter in trained.named_parameters():
        optimizer.state[parameter] = {
            key: tensors[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{key}" in tensors
        }
    return msgspec.json.decode((folder / STATE_FILE).read_bytes(), type=RunState)


def prune_checkpoints(run_dir: Path, *, keep_last: int, best_step: int | None) -> list[int]:
    """Delete all but the last few and the best; returns the steps that are gone."""
    folders = sorted((run_dir / CHECKPOINTS_DIR).glob("step-*"))
    removed = []
    for folder in folders[:-keep_last]:
        step = int(folder.name.removeprefix("step-"))
        if step != best_step:
            shutil.rmtree(folder)
            removed.append(step)
    return removed


def disk_space(run_dir: Path, trained: TrainedModel, num_checkpoints: int) -> tuple[int, int]:
    """(bytes that the kept checkpoints will take, bytes free)."""
    learned = sum(parameter.numel() * parameter.element_size() for _, parameter in trained.named_parameters())
    return 3 * learned * num_checkpoints, shutil.disk_usage(run_dir).free


def _save_weights(folder: Path, spec: RunSpec, trained: TrainedModel) -> None:
    tensors = {name: parameter.detach().contiguous() for name, parameter in trained.named_parameters()}
    if not trained.is_lora:
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        trained.model.config.save_pretrained(folder)
        return
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": spec.base_model,
        "r": spec.lora_r,
        "lora_alpha": spec.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": lora_targets(trained.model),
    }
    (folder / "adapter_config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=1) + b"\n")


def _optimizer_tensors(trained: TrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {_RNG: torch.get_rng_state()}
    for name, parameter in trained.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{name}/{key}"] = value.contiguous()
    return tensors


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Tiny random models with a real tokenizer, made on the spot: every shape that the trainer must know."""

import random
from pathlib import Path
from typing import Any

import msgspec
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from tunesmith.catalog.fetch import sha256_of
from tunesmith.catalog.models import MANIFEST_FILE, BaseModel
from tunesmith.core.types import RunSpec

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "red",
    "green",
    "blue",
    "amber",
    "owl",
    "wren",
    "kestrel",
    "robin",
    "one",
    "two",
    "three",
    "four",
    "open",
    "close",
    "move",
    "claim",
    "desk",
    "code",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

SHAPES: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma": GemmaConfig,
    "mistral": MistralConfig,
    "phi": PhiConfig,
}


def tiny_config(shape: str, vocab_size: int) -> PreTrainedConfig:
    extra: dict[str, Any] = {}
    if shape in ("qwen3", "gemma"):
        extra["head_dim"] = 8
    if shape == "mistral":
        extra["sliding_window"] = 24
    return SHAPES[shape](
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **extra,
    )


def make_tiny_base(folder: Path, shape: str = "llama", seed: int = 0) -> Path:
    """A base model folder as the catalog installs them, without an engine's file."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[0]}
    (folder / "tokenizer_config.json").write_bytes(msgspec.json.encode(names))
    (folder / "chat_template.jinja").write_text(CHATML)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(shape, tokenizer.get_vocab_size()))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # large enough that attention is not flat
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    manifest = BaseModel(
        id=folder.name,
        name=folder.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        context_tokens=512,
        created=1,
        license="none",
    )
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS), "system user assistant tool"] * 3, trainer)
    return tokenizer


def chat_lines(
    num_rows: int, *, seed: int = 0, system: str = "You answer with one code word.", turns: int = 1, answer: str = ""
) -> list[bytes]:
    """Rows that share a system prompt; lengths differ."""
    rng = random.Random(seed)
    lines = []
    for _ in range(num_rows):
        messages = [{"role": "system", "content": system}] if system else []
        for _ in range(turns):
            messages.append({"role": "user", "content": " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))})
            said = answer or " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))
            messages.append({"role": "assistant", "content": said})
        lines.append(msgspec.json.encode({"messages": messages}))
    return lines


def write_lines(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def make_run(
    run_dir: Path,
    base: Path,
    *,
    num_rows: int = 24,
    num_valid: int = 6,
    answer: str = "",
    valid_answer: str = "",
    **changes: Any,
) -> RunSpec:
    """A run directory ready for ``python -m tunesmith.trainer``."""
    run_dir.mkdir(parents=True)
    train = write_lines(run_dir / "train.jsonl", chat_lines(num_rows, answer=answer))
    valid = (
        write_lines(run_dir / "valid.jsonl", chat_lines(num_valid, seed=1, answer=valid_answer)) if num_valid else None
    )
    values: dict[str, Any] = {
        "job_id": "ftjob-test",
        "base_model": base.name,
        "base_dir": str(base),
        "train_path": str(train),
        "train_sha256": sha256_of(train),
        "valid_path": None if valid is None else str(valid),
        "valid_sha256": None if valid is None else sha256_of(valid),
        "n_epochs": 3,
        "batch_size": 4,
        "learning_rate": 0.01,
        "learning_rate_multiplier": 1.0,
        "warmup_steps": 2,
        "seed": 7,
        "max_row_tokens": 512,
        "eval_every_steps": 4,
        "eval_rows": 3,
        "lora_r": 4,
        "lora_alpha": 8.0,
        "dtype": "float32",
        "num_threads": 1,
        "num_train_rows": num_rows,
        "num_train_tokens": 0,
        "total_steps": 0,
    }
    spec = RunSpec(**{**values, **changes})
    (run_dir / "spec.json").write_bytes(msgspec.json.encode(spec))
    return spec

"""Our side of bench/train.py: the trainer's own pass, update and micro-batches; lines as in train_peer_trl.py."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from tunesmith.core.types import RunSpec
from tunesmith.data.steps import micro_batches
from tunesmith.data.tokens import TokenSequence
from tunesmith.trainer.batch import pack
from tunesmith.trainer.compute import row_set_losses
from tunesmith.trainer.measure import choose_dtype, gemm_rate, peak_memory_bytes
from tunesmith.trainer.model import TrainedModel, load_model
from tunesmith.trainer.ranks import Ranks


def main(base_dir: str, rows_file: str, batch_size: int, mode: str, epochs: int) -> None:
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    rows = json.loads(Path(rows_file).read_text())
    sequences = [
        TokenSequence.of(line, row["input_ids"], [label != -100 for label in row["labels"]])
        for line, row in enumerate(rows, start=1)
    ]
    spec = bench_spec(base_dir, len(rows), batch_size, epochs)
    config = transformers.AutoConfig.from_pretrained(base_dir)
    choice = choose_dtype(mode, config.hidden_size, config.intermediate_size)
    trained = load_model(spec, choice.dtype)
    parameters = [parameter for _, parameter in trained.named_parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    steps = [sequences[i : i + batch_size] for i in range(0, len(sequences), batch_size)]
    flop = sum(useful_flop(trained, step, spec.micro_batch_tokens) for step in steps)
    for _ in range(epochs):
        peak_rate = {
            name: gemm_rate(getattr(torch, name), config.hidden_size, config.intermediate_size, 1024)
            for name in ("float32", "bfloat16")
        }
        print(json.dumps("ready"), flush=True)
        if not sys.stdin.readline():
            return
        started = time.perf_counter()
        for step in steps:
            train_step(trained, parameters, optimizer, step, spec)
        took = time.perf_counter() - started
        print(
            json.dumps(
                {"s": took, "peak_bytes": peak_memory_bytes(), "flop": flop, "dtype": choice.name, "gemm": peak_rate}
            ),
            flush=True,
        )


def train_step(
    trained: TrainedModel,
    parameters: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    step: list[TokenSequence],
    spec: RunSpec,
) -> None:
    """What the loop does in a step, less its reports."""
    for parameter in parameters:
        parameter.grad = None
    row_set_losses(
        trained, step, learn=True, ranks=Ranks(), max_tokens=spec.micro_batch_tokens, before_each=lambda: None
    )
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def useful_flop(trained: TrainedModel, step: list[TokenSequence], max_tokens: int) -> float:
    """Floating-point operations that the step needs after sharing prefixes: 4P + 6A a token, 14 d a query-key pair and
    layer (4 forward, 10 backward), 4E a supervised token. Recomputing anything would not count."""
    config = trained.model.config
    body = sum(part.weight.numel() for part in trained.model.modules() if hasattr(part, "lora_A"))
    adapters = sum(parameter.numel() for _, parameter in trained.named_parameters())
    width = config.num_attention_heads * config.head_dim
    flop = 0.0
    for piece in micro_batches(step, max_tokens):
        batch = pack(piece)
        tokens, pairs = len(batch.token_ids_T), int(np.sum(batch.position_ids_T.numpy() + 1))
        flop += tokens * (4 * body + 6 * adapters) + 14.0 * width * pairs * config.num_hidden_layers
        flop += len(batch.target_S) * 4.0 * trained.head_weight.numel()
    return flop


def bench_spec(base_dir: str, num_rows: int, batch_size: int, epochs: int) -> RunSpec:
    return RunSpec(
        job_id="bench",
        base_model="bench",
        base_dir=base_dir,
        train_path="",
        train_sha256="",
        n_epochs=epochs,
        batch_size=batch_size,
        learning_rate=1e-4,
        learning_rate_multiplier=1.0,
        warmup_steps=0,
        seed=1,
        max_row_tokens=8192,
        eval_every_steps=1000,
        eval_rows=0,
        num_train_rows=num_rows,
        num_train_tokens=0,
        total_steps=0,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))

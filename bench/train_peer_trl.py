"""The peer in bench/train.py: TRL's SFTTrainer on given token ids; runs in its own environment.

Speaks lines: prints "ready", then for each "go" on standard input trains one epoch and prints its seconds as JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

TUNED = {"bf16": False, "gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
MOST_TOKENS = 3000
"""More in one batch, and the peer was killed for memory (21 GB); the rest of a step is accumulated."""
SHIPPED: dict[str, object] = {}


class Lockstep(TrainerCallback):
    """One epoch for each word on standard input, so that peers take turns."""

    def on_epoch_begin(self, *_: object, **__: object) -> None:
        print(json.dumps("ready"), flush=True)
        if not sys.stdin.readline():
            sys.exit(0)
        self.started = time.perf_counter()

    def on_epoch_end(self, *_: object, **__: object) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"s": time.perf_counter() - self.started, "peak_bytes": peak}), flush=True)


def main(base_dir: str, rows_file: str, batch_size: int, mode: str, epochs: int) -> None:
    rows = json.loads(Path(rows_file).read_text())
    at_once = min(batch_size, MOST_TOKENS // max(len(row["input_ids"]) for row in rows))
    torch.set_num_threads(2)
    config = SFTConfig(
        output_dir=str(Path(rows_file).parent / "trl"),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=batch_size // at_once,
        num_train_epochs=epochs,
        learning_rate=1e-4,
        max_length=None,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_num_proc=1,
        use_cpu=True,
        **(TUNED if mode == "tuned" else SHIPPED),
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(base_dir),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0),
        callbacks=[Lockstep()],
    )
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))

"""Folders of past runs, written as a trainer writes them."""

from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.types import MetricLine, RunResult, RunSpec, TrainerEvent, write_json


def spec(**changed: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "job_id": "ftjob-x", "base_model": "m", "base_dir": "b", "train_path": "t", "train_sha256": "0", "n_epochs": 2,
        "batch_size": 4, "learning_rate": 1e-3, "learning_rate_multiplier": 1.0, "warmup_steps": 1, "seed": 1,
        "max_row_tokens": 512, "eval_every_steps": 5, "eval_rows": 0, "num_train_rows": 8, "num_train_tokens": 800,
        "total_steps": 4,
    }  # fmt: skip
    return RunSpec(**fields | changed)


def line(step: int, tokens: int, seconds: float, **changed: Any) -> MetricLine:
    fields: dict[str, Any] = {
        "step": step, "total_steps": 4, "epoch": 1.0, "train_loss": 1.0, "train_mean_token_accuracy": 0.5,
        "learning_rate": 1e-3, "grad_norm": 1.0, "num_tokens": 2 * tokens, "num_computed_tokens": tokens,
        "num_supervised_tokens": tokens // 2, "step_s": seconds, "remaining_s": 0.0,
    }  # fmt: skip
    return MetricLine(**fields | changed)


def event(seq: int, at: int, type: str, **data: Any) -> TrainerEvent:
    return TrainerEvent(seq=seq, created_at=at, type=type, message="", data=data)  # type: ignore[arg-type]


def write_run(
    home: Path,
    name: str,
    lines: list[MetricLine],
    events: list[TrainerEvent] | None = None,
    result: RunResult | None = None,
    **changed: Any,
) -> Path:
    folder = home / "runs" / name
    folder.mkdir(parents=True)
    write_json(folder / "spec.json", spec(total_steps=len(lines), **changed))
    (folder / "metrics.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    (folder / "events.jsonl").write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events or []))
    if result is not None:
        write_json(folder / "result.json", result)
    return folder

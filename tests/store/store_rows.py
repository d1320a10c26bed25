"""Rows with every required field, for tests that care about one of them."""

from typing import Any

from tunesmith.store.tables import CheckpointRow, FileRow, JobRow, ModelRow


def file_row(file_id: str, **fields: Any) -> FileRow:
    values = {
        "created_at": 1,
        "bytes": 3,
        "filename": "rows.jsonl",
        "purpose": "fine-tune",
        "status": "processed",
        "sha256": "0" * 64,
    }
    return FileRow(id=file_id, **(values | fields))


def job_row(job_id: str, **fields: Any) -> JobRow:
    values = {
        "created_at": 1,
        "status": "validating_files",
        "model": "base",
        "base_model": "base",
        "seed": 7,
        "training_file": "file-1",
        "method": {"type": "supervised"},
        "hyperparameters": {"n_epochs": "auto"},
        "extra": {},
        "run_dir": f"runs/{job_id}",
    }
    return JobRow(id=job_id, **(values | fields))


def checkpoint_row(job_id: str, step: int, **fields: Any) -> CheckpointRow:
    values = {
        "created_at": 1,
        "model_name": f"ft:base:org::{step:08d}:ckpt-step-{step}",
        "dir": f"runs/{job_id}/checkpoints/step-{step:06d}",
        "metrics": {"step": step},
        "sha256": "0" * 64,
        "is_best": False,
    }
    return CheckpointRow(id=f"ftckpt_{job_id}_{step}", job_id=job_id, step=step, **(values | fields))


def model_row(name: str, **fields: Any) -> ModelRow:
    values = {
        "created_at": 1,
        "owned_by": "org",
        "base_model": "base",
        "checkpoint_step": 1,
        "dir": "runs/x/checkpoints/step-000001",
        "sha256": "0" * 64,
        "kind": "tuned",
    }
    return ModelRow(id=name, **(values | fields))

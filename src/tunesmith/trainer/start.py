"""From a RunSpec to a running loop: numeric type, model, data, log."""

from pathlib import Path

import msgspec
import torch
import transformers
from transformers import AutoConfig

from tunesmith.core.types import RunResult, RunSpec
from tunesmith.trainer.dataset import load_data
from tunesmith.trainer.events import RunLog
from tunesmith.trainer.loop import Run
from tunesmith.trainer.measure import DTYPES, DtypeChoice, choose_dtype
from tunesmith.trainer.model import load_model
from tunesmith.trainer.ranks import Ranks

DTYPE_FILE = "dtype.json"


def start_run(run_dir: Path, spec: RunSpec, terminated: list[bool]) -> RunResult | None:
    """Load and train; None when a signal ended it. Raises the errors of data, model and loop."""
    transformers.logging.disable_progress_bar()
    if spec.num_threads:
        torch.set_num_threads(spec.num_threads)
    ranks = Ranks()
    log = RunLog(run_dir if ranks.is_main else _scratch(run_dir, ranks.rank))
    log.phase("loading")
    choice = _dtype(run_dir, spec, log, ranks)
    data = load_data(spec)
    if spec.validation_split:
        log.message(
            f"Held out {len(data.valid)} of {spec.num_train_rows} rows for validation", num_rows=len(data.valid)
        )
    trained = load_model(spec, choice.dtype)
    run = Run(run_dir, spec, data, trained, log, ranks, choice.name)
    run.is_terminated = lambda: bool(terminated)
    result = run.train()
    if result is not None:
        log.done(result.status)
    ranks.close()
    return result


def _dtype(run_dir: Path, spec: RunSpec, log: RunLog, ranks: Ranks) -> DtypeChoice:
    """Chosen once and kept: a resumed run computes in what it began with."""
    file = run_dir / DTYPE_FILE
    name = ranks.agree(msgspec.json.decode(file.read_bytes(), type=str) if file.exists() else None)
    if name is not None:
        return DtypeChoice(DTYPES[name], name, "the run began with it")
    config = AutoConfig.from_pretrained(spec.base_dir, local_files_only=True)
    inner = getattr(config, "intermediate_size", 4 * config.hidden_size)
    choice = choose_dtype(spec.dtype, config.hidden_size, inner)
    name = ranks.agree(choice.name) or choice.name  # every process's probe may say otherwise
    if ranks.is_main:
        file.write_bytes(msgspec.json.encode(name))
    choice = choice._replace(name=name, dtype=DTYPES[name])
    log.message(f"Computing in {choice.name}: {choice.reason}", dtype=choice.name, reason=choice.reason)
    return choice


def _scratch(run_dir: Path, rank: int) -> Path:
    """Where the log lines of the other processes go: the run directory holds one of each."""
    folder = run_dir / f"rank-{rank}"
    folder.mkdir(exist_ok=True)
    return folder

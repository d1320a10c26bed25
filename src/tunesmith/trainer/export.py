"""What a run leaves behind besides checkpoints: the metrics table, and the proof that serving must reproduce."""

import csv
from pathlib import Path
from typing import Any

import msgspec
import torch

from tunesmith.core.types import PARITY_FILE, RESULTS_CSV, MetricLine
from tunesmith.data.tokens import TokenSequence
from tunesmith.trainer.batch import pack
from tunesmith.trainer.model import TrainedModel

CSV_COLUMNS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)
_PARITY_ROWS, _PARITY_TOP, _PARITY_TOKENS = 4, 5, 1024


def write_results_csv(run_dir: Path, lines: list[MetricLine]) -> None:
    """One row per step; a number that was not measured at a step is an empty cell."""
    with (run_dir / RESULTS_CSV).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for line in lines:
            values = (getattr(line, column) for column in CSV_COLUMNS)
            writer.writerow(["" if value is None else value for value in values])


@torch.no_grad()
def write_parity(folder: Path, trained: TrainedModel, sequences: list[TokenSequence]) -> None:
    """The trainer's own next-token log-probabilities where answers begin and in their middle, for the first rows.

    Where that is far behind, a place early in the row stands for it: an engine's context may be shorter than a row.

    Serving feeds the same token ids to its engine and compares: see serving.parity.
    """
    rows = [entry for sequence in sequences[:_PARITY_ROWS] for entry in _row_entries(trained, sequence)]
    (folder / PARITY_FILE).write_bytes(msgspec.json.encode({"rows": rows}))


def _row_entries(trained: TrainedModel, sequence: TokenSequence) -> list[dict[str, Any]]:
    hidden_T_d = trained.hidden(pack([sequence]))
    supervised = [t for t, learn in enumerate(sequence.is_trained) if learn]
    entries = []
    for t in sorted({min(t, _PARITY_TOKENS) for t in (supervised[0], supervised[len(supervised) // 2])}):
        logits_V = (hidden_T_d[t - 1] @ trained.head_weight.T).double()
        top = logits_V.log_softmax(-1).topk(_PARITY_TOP)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        entries.append(
            {
                "prompt_token_ids": sequence.token_ids[:t].tolist(),
                "top": [{"token_id": token_id, "logprob": logprob} for token_id, logprob in pairs],
            }
        )
    return entries

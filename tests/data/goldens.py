"""The doctor's reports of the real sets, kept as numbers: rules, counts, lines. No sentence of the data is kept.

``python tests/data/goldens.py`` writes them again. Read what changed before you commit it: each was reviewed by eye.
"""

import json
from pathlib import Path
from typing import Any

from tunesmith.core.settings import Settings
from tunesmith.data import check
from tunesmith.data.report import DatasetReport

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
REAL_SETS = ROOT.parent / "shared" / "data"
CACHE = ROOT / ".cache" / "tunesmith"
SETTINGS = Settings(home=CACHE)
"""With the base model, whose tokens are in the goldens."""

SETS = {
    "banking77-train": "banking77/train.jsonl",
    "banking77-test": "banking77/test.jsonl",
    "drone": "cookbook/drone_training.jsonl",
    "toy-chat": "cookbook/toy_chat_fine_tuning.jsonl",
    "gsm8k-train": "foundry/gsm8k/chat_train.jsonl",
    "gsm8k-validation": "foundry/gsm8k/chat_validation.jsonl",
    "orca-dpo": "foundry/orca_dpo_pairs/validation.jsonl",
    "countdown-train": "foundry/rft_countdown/countdown_train_100.jsonl",
    "countdown-validation": "foundry/rft_countdown/countdown_valid_50.jsonl",
    "sarcasm-qa": "foundry/sarcasm/qa.jsonl",
    "sarcasm-baseline": "foundry/sarcasm/baseline.jsonl",
    "stock-train": "foundry/stock_toolcall/stock_toolcall_training.jsonl",
    "stock-validation": "foundry/stock_toolcall/stock_toolcall_validation.jsonl",
    "hatecheck": "hatecheck/cases.jsonl",
    "moderation": "moderation/samples.jsonl",
}
VALIDATION = {
    "banking77-train": "banking77-test",
    "gsm8k-train": "gsm8k-validation",
    "countdown-train": "countdown-validation",
    "stock-train": "stock-validation",
}


def checked(name: str) -> DatasetReport:
    """The full report, without an embedding model."""
    validation = VALIDATION.get(name)
    return check(
        REAL_SETS / SETS[name],
        settings=SETTINGS,
        validation=None if validation is None else REAL_SETS / SETS[validation],
    )


def summary(report: DatasetReport) -> dict[str, Any]:
    """What a golden holds of a report."""
    tokens = report.tokens
    return {
        "sha256": report.sha256,
        "kind": report.kind,
        "verdict": report.verdict,
        "rows": report.num_rows,
        "bad_rows": report.num_bad_rows,
        "messages_per_row": {str(number): rows for number, rows in report.messages_per_row.items()},
        "languages": report.languages,
        "labels": None if report.labels is None else [label.num_rows for label in report.labels],
        "tokens": tokens
        and {
            "all": tokens.num_tokens,
            "supervised": tokens.num_supervised_tokens,
            "longest_row": tokens.row_max,
            "digest": tokens.digest,
        },
        "findings": {
            group.rule: {"count": group.count, "lines": [[found.line, found.other_line] for found in group.samples]}
            for group in report.groups
        },
        "skipped": [skipped.rule for skipped in report.skipped],
    }


def golden(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


if __name__ == "__main__":
    for name in SETS:
        text = json.dumps(summary(checked(name)), indent=1)
        (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")

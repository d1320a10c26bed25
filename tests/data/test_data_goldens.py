"""The doctor on real sets. Each golden was read by eye; what a careful reader should see in it:

- banking77: good. 77 labels out of balance by less than ten to one; typing variants of a few questions are
  near-duplicates, and six of them lie on both sides of the split (verified: they differ in a word or a mark).
- drone: nothing but good rows; every answer is a tool call that matches its schema.
- toy-chat: refused, because it has 5 rows; one of them has no system message, one no user, one answers with one
  word many thousand times.
- gsm8k: every answer begins with a space and ends with "!!!", 440 of 449 hold calculator marks <<...>> (the nine
  others solve an equation without them), every prompt ends with "Solution:".
- orca-dpo: pairs, which no job here trains on; three prompts in a wrong encoding (two of them hold its control
  characters too), HTML entities, answers that speak as an AI, four answers that quote much Romanian or Swedish. The
  unequal lengths are not one-sided.
- countdown: good prompts, which no job here trains on; a long instruction that all prompts share does not make them
  near-duplicates.
- stock: a quarter of the answers refuse or ask back, half of those in words begin "I'm sorry,"; a space ends the system
  prompt.
- sarcasm, hatecheck, moderation: no training rows; the keys that they have are named, and the form to write instead.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from goldens import GOLDEN, REAL_SETS, SETS, checked, golden, summary

pytestmark = [
    pytest.mark.skipif(not REAL_SETS.exists(), reason="the real data sets are not beside this repository"),
    pytest.mark.usefixtures("installed_base"),
]


@pytest.mark.parametrize("name", SETS)
def test_the_report_is_the_golden(name: str) -> None:
    assert summary(checked(name)) == golden(name), "if this is meant: .venv/bin/python tests/data/goldens.py, then read"


def test_there_is_no_other_golden() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(SETS)


def findings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = golden(name)["findings"]
    return found


def test_what_a_careful_reader_sees_in_gsm8k() -> None:
    report = checked("gsm8k-train")
    said = {group.rule: group.samples[0].what for group in report.groups}
    assert "'!!!'" in said["recurring_answer_ending"]
    assert "'<<' and '>>' in 440 of 449" in said["recurring_mark"]
    assert "'Solution:'" in said["recurring_prompt_ending"]
    assert "begins with a space" in said["whitespace_at_ends"]
    assert findings("gsm8k-train")["inconsistent_form"]["count"] == 449 - 440


def test_the_toy_set_is_refused_for_its_number() -> None:
    first = checked("toy-chat").groups[0]
    assert first.rule == "too_few_examples"
    assert first.samples[0].what == "Training file has 5 example(s), but must have at least 10 examples"


@pytest.mark.parametrize("name", ["hatecheck", "moderation", "sarcasm-qa"])
def test_what_is_no_training_set_is_told_so(name: str) -> None:
    report = checked(name)
    assert (report.kind, report.num_bad_rows, report.verdict) == (None, report.num_rows, "errors")
    assert '"messages" is missing (keys found: ' in report.groups[0].samples[0].what


@pytest.mark.parametrize("name", ["banking77-train", "gsm8k-train"])
def test_another_process_gives_the_same_report(name: str) -> None:
    """Hashes are salted anew in every process: no order or choice may come from them."""
    code = f"from goldens import *; print(json.dumps(summary(checked({name!r}))))"
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
        out = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True).stdout
        assert json.loads(out) == golden(name)

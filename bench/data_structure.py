"""Speed and memory of the structural check: ``make bench-data``. One JSON document goes to standard output.

A file of a million varied chat rows (about 600 MB, made here) is read on one core by ``check(file, depth="structure")``
and, for the ratio, as OpenAI's cookbook publishes it ("Data preparation and analysis for chat model fine-tuning":
json.loads for every line into one list, then checks and counts for every message in Python; written here from its
description). Then a file of 2 GB with one bad row at its end must be reported with its line. --rows N makes it all
smaller.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tunesmith.data import check

SEED = 20_260_301
NUM_ROWS = 1_000_000
BIG_BYTES = 2 * 10**9
COOKBOOK_ROWS = 200_000
"""The cookbook's way keeps every row in memory; a fifth of the file is enough for its rate."""
TEXT = (
    "account answer balance because before branch calendar card change check city contact customer date deliver desk "
    "email every explain first follow form garden help holiday house invoice kettle later ledger letter library light "
    "market meeting message minute month morning number office open order paper parcel phone plan please price problem "
    "question quick quiet reason receipt refund report request result room school second service ship simple station "
    "street summer table thank ticket time today tomorrow train travel update visit wait water week window winter work"
)
WORDS = TEXT.split()
ODD = ['"quoted"', "line\nbreak", "naïve café", "a\\path", "5 × 3", "日本", "{braces}", "tab\there", "50 %", "🙂"]
SYSTEMS = 40
BAD_ROW = b'{"messages": [{"role": "user", "content": "Who is there?"}]}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=NUM_ROWS)
    parser.add_argument("--measure", choices=("ours", "cookbook"))
    parser.add_argument("--file", type=Path)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.file)))
        return
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as folder:
        print(json.dumps(run(Path(folder), args.rows), indent=2))


def run(folder: Path, num_rows: int) -> dict[str, Any]:
    file, part = folder / "rows.jsonl", folder / "part.jsonl"
    write_rows(file, num_rows)
    write_rows(part, min(num_rows, COOKBOOK_ROWS))
    ours = [in_child("ours", file) for _ in range(3)]
    theirs = in_child("cookbook", part)
    best = max(ours, key=lambda taken: taken["mb_per_s"])
    return {
        "ours": ours,
        "cookbook": theirs,
        "times_cookbook": round(best["mb_per_s"] / theirs["mb_per_s"], 1),
        "bad_row_at_the_end": bad_row_at_the_end(folder / "big.jsonl", file, num_rows),
    }


def bad_row_at_the_end(big: Path, file: Path, num_rows: int) -> dict[str, Any]:
    """The rows again and again up to 2 GB, then a chat without an answer."""
    times = max(1, round(BIG_BYTES * num_rows / NUM_ROWS / file.stat().st_size))
    with big.open("wb") as out:
        for _ in range(times):
            with file.open("rb") as rows:
                while piece := rows.read(2**24):
                    out.write(piece)
        out.write(BAD_ROW)
    found = in_child("ours", big)
    assert found["errors"] == [["example_missing_assistant_message", times * num_rows + 1]], found
    return found


def in_child(what: str, file: Path) -> dict[str, Any]:
    """One measurement in a process of its own, for its peak of memory."""
    command = [sys.executable, __file__, "--measure", what, "--file", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def measure(what: str, file: Path) -> dict[str, Any]:
    """On one core; both the wall's seconds and the processor's, for a machine that others use too."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    wall, cpu = time.perf_counter(), time.process_time()
    found = check_ours(file) if what == "ours" else check_as_the_cookbook(file)
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    num_bytes = file.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found | {
        "mb": round(num_bytes / 1e6),
        "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "mb_per_s": round(num_bytes / 1e6 / wall_s, 1),
        "mb_per_cpu_s": round(num_bytes / 1e6 / cpu_s, 1),
        "peak_mb": round(peak / 1e6),
    }


def check_ours(file: Path) -> dict[str, Any]:
    report = check(file, depth="structure")
    groups = [group for group in report.groups if group.severity == "error"]
    errors = [[sample.rule, sample.line] for group in groups for sample in group.samples]
    return {"rows": report.num_rows, "bad_rows": report.num_bad_rows, "errors": errors}


def check_as_the_cookbook(file: Path) -> dict[str, Any]:
    """Load all, check all, count messages; without the cookbook's count of tokens, which is bench/data_tokens.py's."""
    with file.open(encoding="utf-8") as lines:
        dataset = [json.loads(line) for line in lines]
    errors: dict[str, int] = defaultdict(int)
    num_messages = []
    for example in dataset:
        if not isinstance(example, dict):
            errors["data_type"] += 1
            continue
        messages = example.get("messages", None)
        if not messages:
            errors["missing_messages_list"] += 1
            continue
        for message in messages:
            check_message(message, errors)
        if not any(message.get("role", None) == "assistant" for message in messages):
            errors["example_missing_assistant_message"] += 1
        num_messages.append(len(messages))
        errors["missing_system"] += not any(message["role"] == "system" for message in messages)
        errors["missing_user"] += not any(message["role"] == "user" for message in messages)
    return {"rows": len(dataset), "errors": {rule: count for rule, count in errors.items() if count}}


def check_message(message: dict[str, Any], errors: dict[str, int]) -> None:
    if "role" not in message or "content" not in message:
        errors["message_missing_key"] += 1
    if any(key not in ("role", "content", "name", "function_call", "weight", "tool_calls") for key in message):
        errors["message_unrecognized_key"] += 1
    if message.get("role") not in ("system", "user", "assistant", "function", "tool"):
        errors["unrecognized_role"] += 1
    content = message.get("content")
    if (not content and not message.get("function_call")) or not isinstance(content, str):
        errors["missing_content"] += 1


def write_rows(file: Path, num_rows: int) -> None:
    """Distinct rows of about 600 bytes: one or two turns, four in ten with something to escape, some with weights."""
    rng = random.Random(SEED)
    systems = [words(rng, 8, 30) for _ in range(SYSTEMS)]
    with file.open("w", encoding="utf-8", newline="\n") as out:
        for number in range(num_rows):
            out.write(json.dumps(row(rng, systems, number), ensure_ascii=number % 3 == 0) + "\n")


def row(rng: random.Random, systems: list[str], number: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": rng.choice(systems)}] if number % 10 else []
    for _ in range(2 if number % 6 == 0 else 1):
        asked = f"{words(rng, 8, 40)} {number}"
        if rng.random() < 0.4:
            asked += " " + rng.choice(ODD)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": words(rng, 4, 50)}]
    if number % 50 == 0:
        messages[-1]["weight"] = 1
    return {"messages": messages}


def words(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))


if __name__ == "__main__":
    main()

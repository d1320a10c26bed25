"""Make train.jsonl, validation.jsonl and heldout.jsonl from phrases.toml: always the same bytes.

Every row is one customer's message and the house's line for it, for instance
``CINDER-4 | red | desk Ash | Hold fast.`` The incident decides the code and the desk; what the customer
says about haste decides the colour and the house phrase. An incident belongs to one file only.
"""

import json
import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SPLITS = {"train": 25, "heldout": 5, "validation": 2}
"""Incidents of each kind that go into each file: 12 kinds give 300, 60 and 24 rows."""
COLOURS = ("green", "amber", "red")


def main() -> None:
    phrases = tomllib.loads((HERE / "phrases.toml").read_text(encoding="utf-8"))
    for split, rows in make_splits(phrases).items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (HERE / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{split}.jsonl: {len(rows)} rows")


def make_splits(phrases: dict[str, Any], seed: int = 1897) -> dict[str, list[dict[str, Any]]]:
    """All rows by file, each file in shuffled order."""
    rng = random.Random(seed)
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for number, kind in enumerate(phrases["kinds"]):
        for split, incidents in deal_incidents(kind["incidents"], rng):
            for position, incident in enumerate(incidents):
                colour = COLOURS[(position + number) % len(COLOURS)]
                splits[split].append(make_row(phrases, kind, incident, colour, rng))
    for rows in splits.values():
        rng.shuffle(rows)
    return splits


def deal_incidents(incidents: list[str], rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Deal one kind's incidents out to the files, none of them twice."""
    shuffled = rng.sample(incidents, len(incidents))
    for split, num_rows in SPLITS.items():
        yield split, [shuffled.pop() for _ in range(num_rows)]


def make_row(
    phrases: dict[str, Any], kind: dict[str, Any], incident: str, colour: str, rng: random.Random
) -> dict[str, Any]:
    """One chat: the shared system prompt, the customer's message, the house's line."""
    answer = f"{kind['code']} | {colour} | desk {kind['desk']} | {phrases['colours'][colour]}"
    return {
        "messages": [
            {"role": "system", "content": phrases["system"]},
            {"role": "user", "content": write_message(phrases["voices"], kind, incident, colour, rng)},
            {"role": "assistant", "content": answer},
        ]
    }


def write_message(
    voices: dict[str, list[str]], kind: dict[str, Any], incident: str, colour: str, rng: random.Random
) -> str:
    """An opener, the incident, a sentence about haste (sometimes before the incident) and a closer."""
    haste = rng.choice(kind["red"] if colour == "red" else voices[colour])
    body = [haste, incident] if rng.random() < 0.25 else [incident, haste]
    parts = [rng.choice(voices["openers"]), *body, rng.choice(voices["closers"])]
    return " ".join(part for part in parts if part)


if __name__ == "__main__":
    main()

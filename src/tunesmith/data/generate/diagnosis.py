"""The doctor's word on candidates: the same ``check`` as for any training file, over the seeds and the candidates.

Seeds stand first, so that a candidate that repeats or contradicts one is the later line. What the doctor says of the
set as a whole, or of a seed, drops nothing.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.settings import Settings
from tunesmith.data.doctor import check
from tunesmith.data.findings import Finding
from tunesmith.data.generate.candidates import Candidate, Drop
from tunesmith.data.generate.sources import SeedExample
from tunesmith.data.report import Skipped
from tunesmith.data.rules import RULES
from tunesmith.data.sets.relevance import Embed

DROPPING = frozenset(
    {
        "answer_not_json",
        "answer_repeats_prompt",
        "bank_account_number",
        "contradicting_answers",
        "control_characters",
        "cut_off_answer",
        "double_bos",
        "duplicate_row",
        "empty_content",
        "mojibake",
        "near_duplicate_row",
        "payment_card_number",
        "repeats_itself",
        "replacement_character",
        "secret_key",
        "social_security_number",
        "speaks_as_an_ai",
        "template_tokens_in_content",
        "unrelated_answer",
    }
)
"""Warnings and hints that drop a candidate, as every error does. E-mail addresses and telephone numbers do not: those
of a document's own help desk are often what the answer is about."""


class Doctor:
    """Knows the settings, for the embedded model's tokens, and ``embed`` where the embedding model is installed."""

    def __init__(self, settings: Settings, embed: Embed | None):
        self._settings = settings
        self._embed = embed

    def examine(
        self, candidates: Sequence[Candidate], seeds: Sequence[SeedExample], system: str
    ) -> tuple[list[Drop], list[Skipped]]:
        """Those that may not stay, and the rules that could not be applied, of those that would drop."""
        findings: list[Finding] = []
        with tempfile.TemporaryDirectory(prefix="tunesmith-generate-") as room:
            path = Path(room) / "candidates.jsonl"
            exchanges = [(seed.prompt, seed.answer) for seed in seeds] + [
                (one.prompt, one.answer) for one in candidates
            ]
            with path.open("wb") as file:
                file.writelines(chat_line(prompt, answer, system) for prompt, answer in exchanges)
            report = check(path, kind="chat", embed=self._embed, sink=findings.append, settings=self._settings)
        drops = _first_of_each(_drops(findings, candidates, len(seeds)))
        return drops, [skipped for skipped in report.skipped if _drops_rows(skipped.rule)]


def chat_line(prompt: str, answer: str, system: str) -> bytes:
    """One row of a training file."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return msgspec.json.encode({"messages": messages}) + b"\n"


def _drops(findings: Sequence[Finding], candidates: Sequence[Candidate], num_seeds: int) -> Iterator[Drop]:
    for finding in findings:
        if finding.line is not None and finding.line > num_seeds and _drops_rows(finding.rule):
            slot = candidates[finding.line - num_seeds - 1].slot
            yield Drop(slot=slot, rule=finding.rule, what=_in_slots(finding, candidates, num_seeds))


def _in_slots(finding: Finding, candidates: Sequence[Candidate], num_seeds: int) -> str:
    """The finding's words; the line it names is one of our own file, which nobody sees."""
    if finding.other_line is None:
        return finding.what
    place = finding.other_line - num_seeds - 1
    other = "a seed row" if place < 0 else f"candidate {candidates[place].slot}"
    return f"{RULES[finding.rule].title}: {other}."


def _first_of_each(drops: Iterator[Drop]) -> list[Drop]:
    by_slot: dict[int, Drop] = {}
    for drop in drops:
        by_slot.setdefault(drop.slot, drop)
    return list(by_slot.values())


def _drops_rows(rule: str) -> bool:
    return rule in DROPPING or RULES[rule].severity == "error"

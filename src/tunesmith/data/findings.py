"""Findings: what a rule saw, where. Counted for every rule, kept whole for a few lines, streamed whole to a sink."""

from collections.abc import Callable
from typing import Literal

import msgspec

from tunesmith.data.rules import RULES, FixName, Rule, Severity

MAX_SAMPLES = 5
"""Sample findings kept with a group; the others are only counted, and go to the sink."""
SEVERITY_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "hint": 2}


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule's word about one place. The rule's own why and mend are not repeated here."""

    rule: str
    """An id of ``rules.RULES``."""
    what: str
    """One sentence about this place: never the whole text of a message, never personal data unmasked."""
    line: int | None = None
    """From 1; None is about the whole file."""
    json_path: str | None = None
    """For instance ``$.messages[2].role``."""
    other_line: int | None = None
    """The line that this one repeats or contradicts."""
    is_by_hand: bool = False
    """The rule's fix does not help here: absent where it does, or where the rule has none."""


class FindingGroup(msgspec.Struct, frozen=True, kw_only=True):
    """All findings of one rule."""

    rule: str
    severity: Severity
    title: str
    why: str
    mend: str
    fix: FixName | None
    """The mend that a machine can do in this file, for ``mend``; None when only a person can."""
    count: int
    samples: list[Finding]


Sink = Callable[[Finding], None]


class FindingLog:
    """Takes findings in any order; memory does not grow with their number."""

    def __init__(self, sink: Sink | None = None):
        self._sink = sink
        self._counts: dict[str, int] = {}
        self._num_by_hand: dict[str, int] = {}
        self._samples: dict[str, list[Finding]] = {}

    def add(self, finding: Finding) -> None:
        """Count it, keep it when it is among the first of its rule, and hand it to the sink."""
        rule = finding.rule
        count = self._counts.get(rule, 0)
        self._counts[rule] = count + 1
        if finding.is_by_hand:
            self._num_by_hand[rule] = self._num_by_hand.get(rule, 0) + 1
        if count < MAX_SAMPLES:
            self._samples.setdefault(rule, []).append(finding)
        if self._sink is not None:
            self._sink(finding)

    def count(self, severity: Severity) -> int:
        return sum(number for rule, number in self._counts.items() if RULES[rule].severity == severity)

    def groups(self, *, can_drop: bool = True) -> list[FindingGroup]:
        """Errors first, then warnings, then hints; the most frequent rule of a severity first.

        ``can_drop``: whether a row would be left without those that have errors; else dropping them is no mend.
        """
        order = sorted(self._counts, key=lambda id: (SEVERITY_ORDER[RULES[id].severity], -self._counts[id], id))
        return [self._group(rule, can_drop) for rule in order]

    def _fix(self, rule: Rule, can_drop: bool) -> FixName | None:
        fix = rule.fix
        if self._num_by_hand.get(rule.id, 0) == self._counts[rule.id]:
            fix = "drop_rows" if rule.severity == "error" else None
        return None if fix == "drop_rows" and not can_drop else fix

    def _group(self, id: str, can_drop: bool) -> FindingGroup:
        rule = RULES[id]
        return FindingGroup(
            rule=id,
            severity=rule.severity,
            title=rule.title,
            why=rule.why,
            mend=rule.mend,
            fix=self._fix(rule, can_drop),
            count=self._counts[id],
            samples=self._samples[id],
        )


Verdict = Literal["errors", "warnings", "good"]

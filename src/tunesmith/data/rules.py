"""Every rule of the doctor: a stable id, how bad it is, why it matters, how to mend it.

Ids are the cookbook's where it has one ("Data preparation and analysis for chat model fine-tuning"). An id is never
given another meaning. docs/reference/doctor-rules.md has a heading for each; a test keeps it so.
"""

from typing import Literal

import msgspec

Severity = Literal["error", "warning", "hint"]
FixName = Literal["strip", "deduplicate", "drop_rows", "normalise_roles", "mask_personal_data"]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """``severity``: an error stops a job, a warning costs quality, a hint is for a careful reader."""

    id: str
    severity: Severity
    title: str
    why: str
    mend: str
    fix: FixName | None = None
    """The mend that does it by machine."""


def _rule(id: str, severity: Severity, title: str, why: str, mend: str, fix: FixName | None = None) -> Rule:
    return Rule(id=id, severity=severity, title=title, why=why, mend=mend, fix=fix)


_UNREADABLE = "A row that cannot be read cannot be trained on."

_READING = (
    _rule("invalid_json", "error", "Not valid JSON", _UNREADABLE, "Write one JSON object per line.", "drop_rows"),
    _rule("data_type", "error", "Not a JSON object", _UNREADABLE, "Write one JSON object per line.", "drop_rows"),
)

RULES: dict[str, Rule] = {rule.id: rule for rule in (*_READING,)}

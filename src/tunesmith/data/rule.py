"""What a rule of the doctor is."""

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


def make_rule(id: str, severity: Severity, title: str, why: str, mend: str, fix: FixName | None = None) -> Rule:
    return Rule(id=id, severity=severity, title=title, why=why, mend=mend, fix=fix)

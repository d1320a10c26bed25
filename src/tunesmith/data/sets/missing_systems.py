"""Rows without a system message: a word for each where others have one, one word for the file where none has."""

from array import array
from collections.abc import Iterator

from tunesmith.data.conversation import INSTRUCTING
from tunesmith.data.findings import Finding
from tunesmith.data.rows import ChatRow, PreferenceRow, Row

_RULE = "missing_system_message"


class MissingSystems:
    """Holds the findings of the rule back until the file has ended: eight bytes for each."""

    def __init__(self) -> None:
        self._lines = array("q")
        self._first: Finding | None = None
        self._has_system = False

    def see(self, row: Row) -> None:
        if self._has_system or not isinstance(row, ChatRow | PreferenceRow):
            return
        messages = row.messages if isinstance(row, ChatRow) else row.input.messages
        self._has_system = any(message.role in INSTRUCTING for message in messages)

    def held_back(self, findings: list[Finding]) -> list[Finding]:
        """The findings without those of the rule."""
        held = [finding for finding in findings if finding.rule == _RULE]
        if not held:
            return findings
        self._first = self._first or held[0]
        self._lines.extend(finding.line or 0 for finding in held)
        return [finding for finding in findings if finding.rule != _RULE]

    def findings(self) -> Iterator[Finding]:
        if self._first is None:
            return
        if not self._has_system:
            yield Finding(rule=_RULE, what="No row has a system message.")
            return
        for line in self._lines:
            yield Finding(rule=_RULE, what=self._first.what, line=line, json_path=self._first.json_path)

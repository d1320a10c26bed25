"""The findings of one line while it is being read: what they share, and a bound on their number."""

import json
import re

from tunesmith.data.findings import Finding
from tunesmith.data.rules import RULES

MAX_ROW_FINDINGS = 100
"""Findings kept of one line: a single line may hold a million bad messages."""
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w{0,59}", re.ASCII)
_MAX_QUOTED_CHARS = 40


class RowNotes:
    """Collects what is wrong with one line."""

    def __init__(self, line: int):
        self._line = line
        self._findings: list[Finding] = []
        self._num_left_out = 0

    def add(self, rule: str, what: str, path: str | None = None) -> None:
        if len(self._findings) < MAX_ROW_FINDINGS:
            self._findings.append(Finding(rule=rule, what=what, line=self._line, json_path=path))
        else:
            self._num_left_out += 1

    def has_errors(self) -> bool:
        return has_errors(self._findings)

    def findings(self) -> list[Finding]:
        """In the order in which they were added, each once; the last one says how many more there were."""
        found = list(dict.fromkeys(self._findings))
        if self._num_left_out:
            last = found[-1]
            what = f"{last.what} (And {self._num_left_out:,} more findings in this line.)"
            found[-1] = Finding(rule=last.rule, what=what, line=last.line, json_path=last.json_path)
        return found


def has_errors(findings: list[Finding]) -> bool:
    return any(RULES[finding.rule].severity == "error" for finding in findings)


def member(path: str, key: str) -> str:
    """The JSON path of ``key`` in the object at ``path``; a long key is cut."""
    if _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}"
    return f"{path}[{json.dumps(key[:60])}]"


def quoted(value: object) -> str:
    """A value as it may stand in a finding: short, and never with half a surrogate in it."""
    text = repr(value)
    return cut(text, _MAX_QUOTED_CHARS).encode("utf-8", "backslashreplace").decode()


def cut(text: str, most: int = 200) -> str:
    """A text that is not ours, such as a parser's word that repeats a value, short enough for a finding."""
    return text if len(text) <= most else text[:most] + "..."


def kind_name(value: object) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "null")

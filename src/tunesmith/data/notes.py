"""The findings of one line while it is being read: what they share, and a bound on their number."""

import json
import re

import msgspec

from tunesmith.data.findings import Finding
from tunesmith.data.rules import RULES

MAX_ROW_FINDINGS = 100
"""Findings kept of one line: a single line may hold a million bad messages."""
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w{0,59}", re.ASCII)
_MAX_QUOTED_CHARS = 40
_COMPLAINTS = (
    (re.compile("Object missing required field (`.+`)"), r"\1 is missing"),
    (re.compile("Object contains unknown field (`.+`)"), r"Contains an extra \1"),
    (re.compile("Invalid enum value '?(.+?)'?$"), r'"\1" is none of the values that may stand here'),
)
_TYPES = re.compile(r"`([^`]+)`")
_TYPE_NAMES = {
    "array": "a list",
    "bool": "a boolean",
    "float": "a number",
    "int": "a whole number",
    "null": "null",
    "object": "an object",
    "str": "a string",
}


class RowNotes:
    """Collects what is wrong with one line."""

    def __init__(self, line: int):
        self._line = line
        self._findings: list[Finding] = []
        self._num_left_out = 0

    def add(self, rule: str, what: str, path: str | None = None, *, is_by_hand: bool = False) -> None:
        if len(self._findings) < MAX_ROW_FINDINGS:
            finding = Finding(rule=rule, what=what, line=self._line, json_path=path, is_by_hand=is_by_hand)
            self._findings.append(finding)
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
            found[-1] = msgspec.structs.replace(last, what=what)
        return found


def has_errors(findings: list[Finding]) -> bool:
    return any(RULES[finding.rule].severity == "error" for finding in findings)


def member(path: str, key: str) -> str:
    """The JSON path of ``key`` in the object at ``path``; a long key is cut."""
    if _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}"
    return f"{path}[{json.dumps(key[:60])}]"


def quoted(value: object) -> str:
    """A value of JSON as it may stand in a finding: short, and never with half a surrogate in it.

    Of a list or an object only its kind is said.
    """
    if isinstance(value, dict | list):
        return kind_name(value)
    text = json.dumps(value, ensure_ascii=False)
    return cut(text, _MAX_QUOTED_CHARS).encode("utf-8", "backslashreplace").decode()


def plain_words(complaint: str) -> str:
    """A decoder's word about a value, ``Expected `array | null`, got `object` ``, with JSON's names of its types."""
    for pattern, words in _COMPLAINTS:
        complaint = pattern.sub(words, complaint)
    return _TYPES.sub(lambda found: _type_names(found[1]), complaint)


def _type_names(types: str) -> str:
    *others, last = (_TYPE_NAMES.get(name, f'"{name}"') for name in types.split(" | "))
    return f"{', '.join(others)} or {last}" if others else last


def cut(text: str, most: int = 200) -> str:
    """A text that is not ours, such as a parser's word that repeats a value, short enough for a finding."""
    return text if len(text) <= most else text[:most] + "..."


def kind_name(value: object) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "null")

"""The rules that look at one row: its texts, every string that may be personal, then its answer."""

from collections.abc import Callable, Iterator

import msgspec

from tunesmith.data.content.answers import answer_faults
from tunesmith.data.content.damage import Complaint, damage
from tunesmith.data.content.personal import find_personal, shown_masked
from tunesmith.data.content.turns import RowView, Turn
from tunesmith.data.findings import Finding
from tunesmith.data.rows import ReinforcementRow, Row
from tunesmith.data.texts import Place, strings

_RULE_OF_KIND = {
    "email": ("email_address", "e-mail address"),
    "phone": ("phone_number", "telephone number"),
    "card": ("payment_card_number", "payment card number"),
    "iban": ("bank_account_number", "bank account number"),
    "ssn": ("social_security_number", "social security number"),
    "secret": ("secret_key", "key or password"),
}
_MAX_REMEMBERED = 2048
_REMEMBERED_CHARS = 8192
_WHITE_SPACE = {
    " ": "a space",
    "\n": "a line break",
    "\t": "a tab",
    "\r": "a carriage return",
    "\xa0": "a no-break space",
}


_INSTRUCTING = frozenset(("system", "developer"))
_TOOLS = ("$.tools", "$.functions", "$.input.tools")


class RowRules:
    """Checks rows one by one. Tools and the texts of systems repeat from row to row, so what was found in one is
    remembered."""

    def __init__(self) -> None:
        self._remembered: dict[tuple[Callable[[str], Iterator[Complaint]], str], tuple[Complaint, ...]] = {}

    def findings(self, row: RowView) -> Iterator[Finding]:
        """All findings of a row. Personal data is looked for in the very strings that the fix masks."""
        for turn in row.turns:
            for rule, what in self._faults(damage, turn.text, turn.role in _INSTRUCTING):
                yield Finding(rule=rule, what=what, line=row.line, json_path=turn.path)
            for rule, what in _of_ends(turn, row):
                yield Finding(rule=rule, what=what, line=row.line, json_path=turn.path)
        for place in strings(_as_json(row.row)):
            for rule, what in self._faults(personal_faults, place.text, _is_repeated(place)):
                yield Finding(rule=rule, what=what, line=row.line, json_path=place.json_path)
        for rule, what in answer_faults(row):
            yield Finding(rule=rule, what=what, line=row.line, json_path=row.answer_path)

    def _faults(
        self, faults: Callable[[str], Iterator[Complaint]], text: str, is_repeated: bool
    ) -> tuple[Complaint, ...]:
        if not is_repeated:
            return tuple(faults(text))
        found = self._remembered.get((faults, text))
        if found is None:
            found = tuple(faults(text))
            if len(self._remembered) < _MAX_REMEMBERED and len(text) <= _REMEMBERED_CHARS:
                self._remembered[faults, text] = found
        return found


def _as_json(row: Row) -> object:
    """The row as it was written, but for keys that it lacks."""
    value = msgspec.to_builtins(row)
    if isinstance(row, ReinforcementRow):
        value.update(value.pop("extras"))
    return value


def _is_repeated(place: Place) -> bool:
    if isinstance(place.holder, dict) and place.holder.get("role") in _INSTRUCTING:
        return True
    return place.json_path.startswith(_TOOLS)


def personal_faults(text: str) -> Iterator[Complaint]:
    """What personal data there is, unreadable."""
    shown: dict[str, list[str]] = {}
    for span in find_personal(text):
        shown.setdefault(span.kind, []).append(shown_masked(text, span))
    for kind, pieces in shown.items():
        rule, name = _RULE_OF_KIND[kind]
        more = f" and {len(pieces) - 3} more" if len(pieces) > 3 else ""
        yield rule, f"{len(pieces)} {name}{'s' * (len(pieces) > 1)}: {', '.join(pieces[:3])}{more}."


def _of_ends(turn: Turn, row: RowView) -> Iterator[Complaint]:
    """White space around a text, and a text that is nothing else."""
    text = turn.text
    if turn.is_arguments or not (text and (text[0].isspace() or text[-1].isspace())):
        if not text and turn.role in ("user", "system", "developer"):
            yield "empty_content", f"The {turn.role} message is empty."
        return
    if not text.strip():
        yield "empty_content", f"The {turn.role} message is white space only."
        return
    begins = text[0].isspace() and not _is_separator(turn, row)
    ends = text[-1].isspace()
    if begins or ends:
        rule = "whitespace_at_ends" if turn.is_trained else "whitespace_at_prompt_ends"
        places = [f"begins with {_named(text[0])}"] * begins + [f"ends with {_named(text[-1])}"] * ends
        yield rule, f"The text {' and '.join(places)}."


def _is_separator(turn: Turn, row: RowView) -> bool:
    """The space with which a legacy completion begins, as its makers advised, parts it from the prompt."""
    return row.kind == "completion" and turn.is_trained and turn.text[:2] != "  " and turn.text[0] == " "


def _named(character: str) -> str:
    return _WHITE_SPACE.get(character, f"U+{ord(character):04X}")

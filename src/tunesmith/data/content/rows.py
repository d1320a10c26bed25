"""The rules that look at one row: every text of it, then its answer."""

from collections.abc import Iterator

from tunesmith.data.content.answers import answer_faults
from tunesmith.data.content.damage import Complaint, damage
from tunesmith.data.content.personal import find_personal, shown_masked
from tunesmith.data.content.turns import RowView, Turn
from tunesmith.data.findings import Finding

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


class RowRules:
    """Checks rows one by one. The texts of systems repeat from row to row, so what was found in one is remembered."""

    def __init__(self) -> None:
        self._remembered: dict[str, tuple[Complaint, ...]] = {}

    def findings(self, row: RowView) -> Iterator[Finding]:
        """All findings of a row, in the order of its texts."""
        for turn in row.turns:
            for rule, what in self._of_text(turn):
                yield Finding(rule=rule, what=what, line=row.line, json_path=turn.path)
            for rule, what in _of_ends(turn, row):
                yield Finding(rule=rule, what=what, line=row.line, json_path=turn.path)
        for rule, what in answer_faults(row):
            yield Finding(rule=rule, what=what, line=row.line, json_path=row.answer_path)

    def _of_text(self, turn: Turn) -> tuple[Complaint, ...]:
        if turn.role not in ("system", "developer"):
            return tuple(text_faults(turn.text))
        found = self._remembered.get(turn.text)
        if found is None:
            found = tuple(text_faults(turn.text))
            if len(self._remembered) < _MAX_REMEMBERED and len(turn.text) <= _REMEMBERED_CHARS:
                self._remembered[turn.text] = found
        return found


def text_faults(text: str) -> Iterator[Complaint]:
    """Damage and personal data in one text."""
    yield from damage(text)
    yield from _personal(text)


def _personal(text: str) -> Iterator[Complaint]:
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

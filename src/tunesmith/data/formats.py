"""Training rows as they come: one JSON object per line, typed. Source: OpenAI's fine-tuning formats (wire 3.1).

Decoding is typed and fast (msgspec). Most chat rows are plain: texts in turn, the answer last. Counting their quotes
proves that they hold nothing else, so that only the others are looked at rule by rule.
"""

from typing import Any, Literal

import msgspec

from tunesmith.core.errors import DataError
from tunesmith.data.conversation import INSTRUCTING, missing_system, note_row
from tunesmith.data.explain import OLD_NAMES, explain_row
from tunesmith.data.findings import Finding
from tunesmith.data.json_line import note_duplicates
from tunesmith.data.notes import RowNotes, cut, has_errors
from tunesmith.data.rows import (
    ROLES,
    ChatRow,
    CompletionRow,
    FunctionCall,
    Kind,
    Message,
    PreferenceInput,
    PreferenceRow,
    ReinforcementRow,
    Role,
    Row,
    TextPart,
    ToolCall,
    conversations,
    kind_of,
)
from tunesmith.data.rules import RULES

__all__ = [
    "ROLES",
    "ChatRow",
    "CompletionRow",
    "FunctionCall",
    "Kind",
    "Message",
    "PreferenceInput",
    "PreferenceRow",
    "ReinforcementRow",
    "Role",
    "Row",
    "TextPart",
    "ToolCall",
    "conversations",
    "decode_any",
    "decode_row",
    "kind_of",
    "read_row",
]

_MAX_PLAIN_MESSAGES = 1000
_SPEAKING = frozenset(("system", "developer", "user", "assistant"))
_Problems = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _OldPreferenceRow(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={new: old for old, new in OLD_NAMES.items()}
):
    input: PreferenceInput
    preferred_output: list[Message]
    non_preferred_output: list[Message]


class _Prompt(msgspec.Struct, frozen=True):
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


_chats = msgspec.json.Decoder(ChatRow)
_preferences = msgspec.json.Decoder(PreferenceRow)
_old_preferences = msgspec.json.Decoder(_OldPreferenceRow)
_prompts = msgspec.json.Decoder(_Prompt)
_objects = msgspec.json.Decoder(dict[str, Any])
_completions = msgspec.json.Decoder(CompletionRow)


def decode_row(raw: bytes, line: int) -> ChatRow:
    """One line of a chat file. Raises DataError with line, JSON path and mend."""
    row = decode_any(raw, line, "chat")
    assert isinstance(row, ChatRow)
    return row


def decode_any(raw: bytes, line: int, kind: Kind) -> Row:
    """One line of a file of that kind. Raises DataError for the first error of the row."""
    row, findings = read_row(raw, line, kind)
    if row is None:
        raise _data_error(next(finding for finding in findings if RULES[finding.rule].severity == "error"))
    return row


def read_row(raw: bytes, line: int, kind: Kind) -> tuple[Row | None, list[Finding]]:
    """The row of one line and all that is to be said of it. No row when one of the findings is an error."""
    try:
        row: Row = _chats.decode(raw) if kind == "chat" else _decode(raw, kind)
        if type(row) is ChatRow and _is_plain(row, raw):
            return row, ([] if row.messages[0].role in INSTRUCTING else _without_system(row, line))
        notes = RowNotes(line)
        note_duplicates(raw, notes)
        note_row(row, notes)
    except _Problems as error:
        return None, _explained(raw, line, kind, error)
    findings = notes.findings()
    return (None if has_errors(findings) else row), findings


def _decode(raw: bytes, kind: Literal["preference", "reinforcement", "completion"]) -> Row:
    match kind:
        case "preference":
            return _decode_preference(raw)
        case "completion":
            return _completions.decode(raw)
        case "reinforcement":
            prompt = _prompts.decode(raw)
            extras = {key: value for key, value in _objects.decode(raw).items() if key not in ("messages", "tools")}
            return ReinforcementRow(prompt.messages, prompt.tools, extras)


def _decode_preference(raw: bytes) -> PreferenceRow:
    try:
        return _preferences.decode(raw)
    except msgspec.ValidationError:
        old = _old_preferences.decode(raw)
        return PreferenceRow(old.input, old.preferred_output, old.non_preferred_output)


def _is_plain(row: ChatRow, raw: bytes) -> bool:
    """Whether the row is nothing but texts, a user's before the assistant's at the end: then no rule has a word to say.

    Such a row has 2 quotes for its key and 8 for each message, beside those within texts. When every content is a text,
    any other key, and any key that stands twice, makes it more.
    """
    messages = row.messages
    if not 2 <= len(messages) <= _MAX_PLAIN_MESSAGES:
        return False
    for message in messages:
        if type(message.content) is not str or not message.content or message.role not in _SPEAKING:
            return False
    if message.role != "assistant" or messages[-2].role != "user":
        return False
    num_more = raw.count(b'"') - 2 - 8 * len(messages)
    return not num_more or (num_more == _num_quotes_within(messages) and b"\\u0022" not in raw)


def _num_quotes_within(messages: list[Message]) -> int:
    """Quotes in contents that are texts: each is one in the line too, unless it is written by its code point."""
    return sum(message.content.count('"') for message in messages if isinstance(message.content, str))


def _without_system(row: ChatRow, line: int) -> list[Finding]:
    if any(message.role in INSTRUCTING for message in row.messages):
        return []
    return [missing_system(line)]


def _explained(raw: bytes, line: int, kind: Kind, error: Exception) -> list[Finding]:
    findings = explain_row(raw, line, kind)
    if not has_errors(findings):  # refused by the fast decoder alone: its own words must do
        rule = "wrong_type" if isinstance(error, msgspec.ValidationError) else "invalid_json"
        findings.insert(0, Finding(rule=rule, what=f"{cut(str(error))}.", line=line))
    return findings


def _data_error(finding: Finding) -> DataError:
    mend = RULES[finding.rule].mend
    return DataError(finding.what, line=finding.line, json_path=finding.json_path, mend=mend)

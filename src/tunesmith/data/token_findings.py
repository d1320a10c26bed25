"""What only a tokenizer can see: too long, cut, nothing learned, special tokens where a text should be."""

from collections.abc import Iterator

from tunesmith.core.errors import DataError
from tunesmith.data.findings import Finding
from tunesmith.data.formats import (
    ChatRow,
    CompletionRow,
    Message,
    PreferenceRow,
    ReinforcementRow,
    Row,
)
from tunesmith.data.rules import RULES
from tunesmith.data.tokens import RowTokenizer, TokenSequence
from tunesmith.data.words import TOKEN_BYTES, pack

MAX_TOKEN_BYTES = 64
"""No row of text has tokens this long on average: a longer row is not given to the tokeniser's memory."""


def refused_finding(error: DataError, line: int) -> Finding:
    """The finding for a row that ``encode_row`` refuses."""
    rule = error.code if error.code in RULES else "template_refuses_row"
    return Finding(rule=rule, what=error.message, line=line, json_path=error.json_path)


def oversized_finding(num_bytes: int, limit: int, line: int) -> Finding | None:
    """A row that cannot fit whatever its words, told from its size."""
    if num_bytes <= MAX_TOKEN_BYTES * limit:
        return None
    return Finding(
        rule="over_context", what=f"The row has {num_bytes:,} bytes, more than {limit:,} tokens can hold.", line=line
    )


def token_findings(
    row: Row, sequences: list[TokenSequence], line: int, *, limit: int, tokenizer: RowTokenizer
) -> list[Finding]:
    """All that the token rules say about a row that could be tokenised. ``limit`` is in tokens."""
    findings = [_over_context(sequence, line, limit) for sequence in sequences if len(sequence.token_ids) > limit]
    if not isinstance(row, ReinforcementRow) and not all(_learns(sequence, tokenizer) for sequence in sequences):
        what = "Of an answer only the end of its turn is learned: the template or the tokenizer drops its text."
        findings.append(Finding(rule="zero_supervised_tokens", what=what, line=line))
    if any(_has_double_bos(sequence, tokenizer) for sequence in sequences):
        findings.append(Finding(rule="double_bos", what="Two starts of a text stand side by side.", line=line))
    findings += _special_findings(row, line, tokenizer)
    return findings


def _special_findings(row: Row, line: int, tokenizer: RowTokenizer) -> Iterator[Finding]:
    for part, key, text in _texts(row):
        token = tokenizer.find_special(text)
        if token is not None:
            path = f"{part}.{key}" if isinstance(key, str) else f"{part}[{key}].content"
            what = f"The text holds {token}, which the model reads as a special token."
            yield Finding(rule="template_tokens_in_content", what=what, line=line, json_path=path)


def _over_context(sequence: TokenSequence, line: int, limit: int) -> Finding:
    length, learned = len(sequence.token_ids), sequence.num_supervised_tokens
    cut = sequence.is_trained[limit:].count(1)
    part = "all of what is learned" if cut == learned else f"{cut:,} of the {learned:,} tokens that are learned"
    return Finding(
        rule="over_context",
        what=f"The row has {length:,} tokens; the most is {limit:,}. Cut there, it would lose its last "
        f"{length - limit:,} tokens, with {part if learned else 'the end of the prompt'}.",
        line=line,
    )


def _learns(sequence: TokenSequence, tokenizer: RowTokenizer) -> bool:
    """Whether a token besides special ones is learned. The first learned one nearly always is such a token."""
    place = sequence.is_trained.find(1)
    while place >= 0:
        if sequence.token_ids[place] not in tokenizer.special_ids:
            return True
        place = sequence.is_trained.find(1, place + 1)
    return False


def _has_double_bos(sequence: TokenSequence, tokenizer: RowTokenizer) -> bool:
    if tokenizer.bos_id is None:
        return False
    ids, pair = sequence.token_ids.tobytes(), pack([tokenizer.bos_id] * 2)
    place = ids.find(pair)
    while place >= 0 and place % TOKEN_BYTES:  # not at a token's beginning
        place = ids.find(pair, place + 1)
    return place >= 0


def _texts(row: Row) -> list[tuple[str, str | int, str]]:
    """(place in the row, key or index there, text): paths are written only for what is found."""
    match row:
        case ChatRow() | ReinforcementRow():
            return _message_texts("$.messages", row.messages)
        case PreferenceRow():
            outputs = _message_texts("$.preferred_output", row.preferred_output)
            outputs += _message_texts("$.non_preferred_output", row.non_preferred_output)
            return _message_texts("$.input.messages", row.input.messages) + outputs
        case CompletionRow():
            return [("$", "prompt", row.prompt), ("$", "completion", row.completion)]


def _message_texts(path: str, messages: list[Message]) -> list[tuple[str, str | int, str]]:
    return [(path, index, message.text()) for index, message in enumerate(messages)]

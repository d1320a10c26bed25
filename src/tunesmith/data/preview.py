"""What will be trained of one row: the conversation, the rendered text, and each token with its mark.

The tokens come from ``RowTokenizer.encode_row``, the function that feeds the trainer, and so does the digest.
"""

from collections.abc import Iterator
from itertools import repeat, takewhile
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from tunesmith.core.errors import NotFound
from tunesmith.data.digest import row_digest
from tunesmith.data.formats import CompletionRow, Kind, PreferenceRow, Row, conversations, decode_any, kind_of
from tunesmith.data.read import read_lines
from tunesmith.data.scan import detect_kind
from tunesmith.data.tokens import RowTokenizer, TokenSequence

MAX_SHOWN_TOKENS = 20_000

Mark = Literal["trained", "rejected", "context", "special"]
"""What is learned; the answer that a preference rejects; what is only read; and of what is only read, a special
token."""

Output = Literal["preferred", "rejected"]


class PreviewToken(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    text: str
    """Empty where a character is made by several tokens: its last one has it."""
    mark: Mark
    is_special: bool


class PreviewSequence(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence that the trainer is fed. Its texts, one after the other, are what the model sees."""

    output: Output | None
    """Which answer of a preference row it ends with; None in other rows."""
    num_tokens: int
    num_supervised_tokens: int
    """Of a rejected output the tokens that are compared with the preferred one's."""
    tokens: list[PreviewToken]
    """The first ``MAX_SHOWN_TOKENS``."""


class PreviewConversation(msgspec.Struct, frozen=True, kw_only=True):
    """Messages and tools as the chat template is given them, and what it makes of them. Raw text has no messages."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    rendered: str


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    line: int
    kind: Kind
    conversations: list[PreviewConversation]
    """One; two of a preference row, the preferred one first."""
    sequences: list[PreviewSequence]
    num_tokens: int
    num_supervised_tokens: int
    """Of all sequences, a rejected one too."""
    digest: str
    """``digest.row_digest`` in hexadecimal: the row's part of what a job records."""


def preview(row: Row, tokenizer: RowTokenizer, line: int) -> Preview:
    """Raises DataError when the chat template refuses the row."""
    sequences = tokenizer.encode_row(row, line)
    return Preview(
        line=line,
        kind=kind_of(row),
        conversations=_conversations(row, tokenizer),
        sequences=[
            _sequence(sequence, tokenizer, output) for sequence, output in zip(sequences, _outputs(row), strict=False)
        ],
        num_tokens=sum(len(sequence.token_ids) for sequence in sequences),
        num_supervised_tokens=sum(sequence.num_supervised_tokens for sequence in sequences),
        digest=row_digest(sequences).hex(),
    )


def preview_line(path: Path, line: int, tokenizer: RowTokenizer) -> Preview:
    """The preview of the row on that line, from 1. Raises NotFound where there is none, DataError for a bad row."""
    raw = next((raw for number, raw in takewhile(lambda row: row[0] <= line, read_lines(path)) if number == line), None)
    if raw is None:
        raise NotFound(f"There is no row on line {line:,}.", param="line", mend="Lines count from 1; some are blank.")
    return preview(decode_any(raw, line, detect_kind(path) or "chat"), tokenizer, line)


def _outputs(row: Row) -> Iterator[Output | None]:
    """Of a preference row the preferred conversation is one sequence and the rejected one another: each has one answer
    that is marked."""
    return iter(get_args(Output)) if isinstance(row, PreferenceRow) else repeat(None)


def _sequence(sequence: TokenSequence, tokenizer: RowTokenizer, output: Output | None) -> PreviewSequence:
    shown = sequence.token_ids[:MAX_SHOWN_TOKENS]
    texts = tokenizer.token_texts(shown)
    learned: Mark = "rejected" if output == "rejected" else "trained"
    return PreviewSequence(
        output=output,
        num_tokens=len(sequence.token_ids),
        num_supervised_tokens=sequence.num_supervised_tokens,
        tokens=[
            _token(id, text, learned if learn else None, id in tokenizer.special_ids)
            for id, text, learn in zip(shown, texts, sequence.is_trained, strict=False)
        ],
    )


def _token(id: int, text: str, learned: Mark | None, is_special: bool) -> PreviewToken:
    mark: Mark = learned or ("special" if is_special else "context")
    return PreviewToken(id=id, text=text, mark=mark, is_special=is_special)


def _conversations(row: Row, tokenizer: RowTokenizer) -> list[PreviewConversation]:
    if isinstance(row, CompletionRow) and tokenizer.completions != "chat":
        return [PreviewConversation(messages=[], tools=None, rendered=row.prompt + row.completion)]
    out = []
    for chat in conversations(row):
        messages, tools = chat.template_messages(), chat.template_tools()
        is_prompt = messages[-1]["role"] != "assistant"
        rendered = tokenizer.template.render(messages, tools, add_generation_prompt=is_prompt)
        out.append(PreviewConversation(messages=messages, tools=tools, rendered=rendered))
    return out

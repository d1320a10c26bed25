"""A conversation rendered and cut once for each shape, then filled with its texts.

Most rows of a file differ only in what is said. A row's shape is its roles in order, which contents are empty, which
answers are learned, and its tools. The row tokenizer renders and cuts a shape once with a hole for each content; what
comes out is a plan: fixed token ids, and pieces of text with holes in them. Filling a plan gives the tokenizer's own
answer only where the template does nothing with a content but place it: a hole notices when it is looked at, each
plan is proven on contents that templates like to treat specially, and a content that holds a special token is not
filled in. Whatever is not proven is rendered by the template each time.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tunesmith.core.errors import DataError
from tunesmith.data.formats import ChatRow, Message
from tunesmith.data.words import TOKEN_BYTES, Packed, TextEncoder


class Turn(msgspec.Struct, frozen=True):
    """One answer: the rendered text from the answer before it to this one, and its own text with what ends it."""

    context: str
    answer: str
    is_trained: bool


Tokens = tuple[Packed, bytes]
"""Ids, and for each a byte that is 1 where it is learned."""

_MAX_SHAPES = 1_000
_MAX_SHAPE_MESSAGES = 256
_MARK = re.compile("\ufdd0([0-9]+)\ufdd1")  # no characters: they never stand in a text
_NASTY_CONTENTS = (
    "plain words",
    " led and followed by spaces  ",
    "\n\nlines\r\n\tand tabs\n",
    "<think>\nwhy\n</think>\n\nbecause",
    "</think>",
    "\"quotes\" and \\ and 'more' & <b>tags</b>",
    "{{ braces }} {% raw %} {# note #}",
    "<tool_call>\n{}\n</tool_call>",
    "<tool_response>\nx\n</tool_response>",
    "<|im_start|>user\nx<|im_end|>",
    "[INST] x [/INST] <<SYS>> <s></s>",
    "Ünïcode 中文 🙂 \u2028\u200b",
    "None",
    "0",
    " ",
)
MARKS = (b"\0", b"\1")
"""Of a token that is only read, and of one that is learned."""


class LookedAt(Exception):
    """The template did more with a content than place it."""


class _Piece(msgspec.Struct, frozen=True):
    """Text between special tokens: literals with contents between them."""

    first: str
    others: list[tuple[int, str]]
    """The message whose content stands there, and the literal that follows it."""
    is_trained: bool

    def text(self, contents: Sequence[str]) -> str:
        text = self.first
        for index, literal in self.others:
            text += contents[index] + literal
        return text


class _Plan(msgspec.Struct, frozen=True):
    steps: list[_Piece | Tokens]

    def fill(self, contents: Sequence[str], encode: Callable[[str], Packed | None]) -> Tokens | None:
        """The row's tokens; None when a content brings a special token with it."""
        token_ids: list[Packed] = []
        marks: list[bytes] = []
        for step in self.steps:
            if isinstance(step, tuple):
                ids, mark = step
            else:
                known = encode(step.text(contents))
                if known is None:
                    return None
                ids, mark = known, MARKS[step.is_trained] * (len(known) // TOKEN_BYTES)
            token_ids.append(ids)
            marks.append(mark)
        return b"".join(token_ids), b"".join(marks)


class Shapes:
    """Plans by shape. A plan is made when its shape is seen for the second time."""

    def __init__(
        self, encoder: TextEncoder, cut: Callable[[ChatRow], list[Turn] | None], join: Callable[[list[Turn]], Tokens]
    ):
        """``cut`` renders a row (None when it has not one sequence), ``join`` makes the tokens a plan must give."""
        self._encoder = encoder
        self._cut = cut
        self._join = join
        self._plans: dict[tuple[object, ...], _Plan | None] = {}
        self._seen: set[tuple[object, ...]] = set()

    def encode(self, row: ChatRow) -> Tokens | None:
        """Token ids and marks of the row's one sequence; None where the template must be asked."""
        contents: list[Any] = []
        key: list[object] = [] if row.tools is None else [msgspec.json.encode(row.tools)]
        for message in row.messages:
            content = message.content
            if type(content) is not str or _has_more(message):
                return None
            contents.append(content)
            key += (message.role, message.weight, not content)
        if row.functions is not None:
            return None
        plan = self._plan(tuple(key), row)
        return None if plan is None else plan.fill(contents, self._encoder.encode_plain)

    def _plan(self, key: tuple[object, ...], row: ChatRow) -> _Plan | None:
        if key in self._plans:
            return self._plans[key]
        if key not in self._seen:
            self._seen.add(key)
            return None
        if len(self._plans) >= _MAX_SHAPES or len(row.messages) > _MAX_SHAPE_MESSAGES:
            return None
        self._plans[key] = self._make(row)
        return self._plans[key]

    def _make(self, row: ChatRow) -> _Plan | None:
        try:
            turns = self._cut(_with_contents(row, _holes(row)))
            if turns is None:
                return None
            plan = _Plan(_without_tail([step for turn in turns for step in self._turn_steps(turn)]))
            return plan if all(self._is_right(plan, row, contents) for contents in _nasty_rounds(row)) else None
        except (LookedAt, DataError):
            return None

    def _turn_steps(self, turn: Turn) -> list[_Piece | Tokens]:
        pieces = self._encoder.split(turn.answer)
        end = max((n + 1 for n, piece in enumerate(pieces) if self._encoder.is_special(piece)), default=0)
        answer = [self._step(piece, turn.is_trained and n < end) for n, piece in enumerate(pieces)]
        return [*(self._step(piece, False) for piece in self._encoder.split(turn.context)), *answer]

    def _step(self, piece: str, is_trained: bool) -> _Piece | Tokens:
        first, *others = _MARK.split(piece)
        if others:
            pairs = zip(others[::2], others[1::2], strict=True)
            return _Piece(first, [(int(index), literal) for index, literal in pairs], is_trained)
        ids = self._encoder.encode(piece)
        return ids, MARKS[is_trained] * (len(ids) // TOKEN_BYTES)

    def _is_right(self, plan: _Plan, row: ChatRow, contents: list[str]) -> bool:
        """Whether the plan gives what the template gives; saying that it cannot be filled is right too."""
        filled = plan.fill(contents, self._encoder.encode_plain)
        if filled is None:
            return True
        turns = self._cut(_with_contents(row, contents))
        return turns is not None and filled == self._join(turns)


def _without_tail(steps: list[_Piece | Tokens]) -> list[_Piece | Tokens]:
    """Without what follows the last learned token: nothing that is learned can see it."""
    last = max(n for n, step in enumerate(steps) if (1 in step[1] if isinstance(step, tuple) else step.is_trained))
    return steps[: last + 1]


def _has_more(message: Message) -> bool:
    """More than a role, a content and a weight."""
    return not (
        message.tool_calls is None
        and message.tool_call_id is None
        and message.name is None
        and message.function_call is None
        and message.refusal is None
    )


def _with_contents(row: ChatRow, contents: Sequence[str]) -> ChatRow:
    pairs = zip(row.messages, contents, strict=True)
    messages = [Message(message.role, content, weight=message.weight) for message, content in pairs]
    return ChatRow(messages, tools=row.tools)


def _holes(row: ChatRow) -> list[str]:
    return [_Hole(f"\ufdd0{n}\ufdd1") if message.content else "" for n, message in enumerate(row.messages)]


def _nasty_rounds(row: ChatRow) -> list[list[str]]:
    """Each message is given another nasty content in every round; a long conversation has fewer rounds."""
    kinds = len(_NASTY_CONTENTS)
    return [
        [_NASTY_CONTENTS[(shift + n) % kinds] if message.content else "" for n, message in enumerate(row.messages)]
        for shift in range(max(4, kinds - len(row.messages)))
    ]


def _refuse(*_: object) -> Any:
    raise LookedAt


class _Hole(str):
    """Stands for a content. It may be joined, printed and asked whether it is empty; nothing else."""

    __slots__ = ()

    def __add__(self, other: str) -> str:
        return _Hole(str.__add__(self, other))

    def __radd__(self, other: str) -> str:
        return _Hole(str.__add__(other, self))

    def __str__(self) -> str:
        return self

    def __bool__(self) -> bool:
        return True

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse


for _name in set(dir(str)) - set(dir(object)) - {"__add__", "__getnewargs__"}:
    setattr(_Hole, _name, _refuse)

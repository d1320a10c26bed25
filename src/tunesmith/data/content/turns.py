"""A row as a reader sees it: who says what, what was asked, what is answered. The same for all kinds of rows."""

from collections.abc import Iterable, Iterator

import msgspec

from tunesmith.data.rows import (
    ChatRow,
    CompletionRow,
    FunctionCall,
    Kind,
    Message,
    PreferenceRow,
    ReinforcementRow,
    Role,
    Row,
    kind_of,
)


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One text of a row. The arguments of a tool call are a turn of their own, after the message's content."""

    path: str
    """JSON path of the text."""
    role: Role
    text: str
    is_trained: bool
    is_arguments: bool = False


class RowView(msgspec.Struct, frozen=True, gc=False):
    """What the rules look at. Keys are equal for equal content, within one process only."""

    line: int
    kind: Kind
    num_messages: int
    turns: list[Turn]
    system: str | None
    """All system and developer texts before the answer; None when there is no such message."""
    prompt: str
    """What was said before the answer, without the system's part."""
    answer: str
    """The last assistant message that is learned, of a preference the preferred one; calls as ``name(arguments)``."""
    answer_path: str | None
    """None: the row has no answer to learn (reinforcement)."""
    is_call: bool
    """Whether the answer is a tool call."""
    rejected: str | None
    """The answer that a preference rejects."""
    row_key: int
    prompt_key: int
    """Of the prompt with the system's part and the tools."""
    row: Row


_encoder = msgspec.json.Encoder(order="sorted")


def view(row: Row, line: int) -> RowView:
    match row:
        case ChatRow():
            context, answer, at = _split(row.messages, "$.messages")
            turns = [turn for place in _places(row.messages, "$.messages") for turn in _turns(*place)]
            rest = row.messages[len(context) + 1 :]
            return _view(row, line, turns, context, answer, at, tools=row.tools or row.functions, more=rest)
        case PreferenceRow():
            return _preference_view(row, line)
        case ReinforcementRow():
            turns = [turn for place in _places(row.messages, "$.messages") for turn in _turns(*place)]
            return _view(row, line, turns, row.messages, None, None, tools=row.tools, more=row.extras)
        case CompletionRow():
            asked, said = Message("user", row.prompt), Message("assistant", row.completion)
            turns = [Turn("$.prompt", "user", row.prompt, False), Turn("$.completion", "assistant", said.text(), True)]
            return _view(row, line, turns, [asked], said, "$.completion")


def spoken(message: Message) -> str:
    """A message as one text, its calls included."""
    calls = [f"{call.name}({call.arguments})" for call in _calls(message)]
    return "\n".join([text for text in (message.text(),) if text] + calls)


def _preference_view(row: PreferenceRow, line: int) -> RowView:
    given = row.input.messages
    before, answer, at = _split(row.preferred_output, "$.preferred_output")
    _, rejected, _ = _split(row.non_preferred_output, "$.non_preferred_output")
    places = [
        *_places(given, "$.input.messages"),
        *_places(row.preferred_output, "$.preferred_output"),
        *_places(row.non_preferred_output, "$.non_preferred_output"),
    ]
    turns = [turn for message, path in places for turn in _turns(message, path, message is answer)]
    return _view(
        row, line, turns, [*given, *before], answer, at, tools=row.input.tools, rejected=spoken(rejected or _NOTHING)
    )


def _view(
    row: Row,
    line: int,
    turns: list[Turn],
    context: list[Message],
    answer: Message | None,
    at: str | None,
    *,
    tools: object = None,
    more: object = None,
    rejected: str | None = None,
) -> RowView:
    system = [message.text() for message in context if message.role in ("system", "developer")]
    prompt = "\n".join(spoken(message) for message in context if message.role not in ("system", "developer"))
    shown = _encoder.encode((context, tools, more))
    said = spoken(answer) if answer is not None else ""
    return RowView(
        line=line,
        kind=kind_of(row),
        num_messages=len(context) + (answer is not None) + (len(more) if isinstance(more, list) else 0),
        turns=turns,
        system="\n".join(system) if system else None,
        prompt=prompt,
        answer=said,
        answer_path=at,
        is_call=answer is not None and bool(answer.tool_calls or answer.function_call),
        rejected=rejected,
        row_key=hash((shown, said, rejected, answer and answer.weight)),
        prompt_key=hash(shown),
        row=row,
    )


def _split(messages: list[Message], path: str) -> tuple[list[Message], Message | None, str | None]:
    """(what comes before the last answer that is learned, that answer, its path)."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].is_trained():
            return messages[:index], messages[index], f"{path}[{index}].content"
    return messages, None, None


def _places(messages: list[Message], path: str) -> Iterable[tuple[Message, str]]:
    return ((message, f"{path}[{index}]") for index, message in enumerate(messages))


def _turns(message: Message, path: str, is_learned: bool = True) -> Iterator[Turn]:
    is_trained = message.is_trained() and is_learned
    if message.content is not None:
        yield Turn(f"{path}.content", message.role, message.text(), is_trained)
    for index, call in enumerate(message.tool_calls or ()):
        where = f"{path}.tool_calls[{index}].function.arguments"
        yield Turn(where, message.role, call.function.arguments, is_trained, True)
    if message.function_call is not None:
        where = f"{path}.function_call.arguments"
        yield Turn(where, message.role, message.function_call.arguments, is_trained, True)


def _calls(message: Message) -> list[FunctionCall]:
    calls = [call.function for call in message.tool_calls or ()]
    return calls if message.function_call is None else [*calls, message.function_call]


_NOTHING = Message("assistant", "")

"""What a typed row must say to be trained on: who speaks, who speaks last, and that there is something to learn."""

from collections.abc import Sequence

from tunesmith.data.findings import Finding
from tunesmith.data.json_line import TOO_DEEP, is_deep
from tunesmith.data.notes import RowNotes
from tunesmith.data.rows import ChatRow, CompletionRow, Message, PreferenceInput, PreferenceRow, ReinforcementRow, Row
from tunesmith.data.tool_calls import Place, Tools, note_tools

MAX_MESSAGES = 2048
INSTRUCTING = ("system", "developer")
_ANSWERING = ("assistant", "tool", "function")
_NO_SYSTEM = "The conversation has no system message."


def note_row(row: Row, notes: RowNotes) -> None:
    """All rules about the sense of one row whose types are right."""
    match row:
        case ChatRow():
            _note_chat(row, notes)
        case PreferenceRow():
            _note_preference(row, notes)
        case ReinforcementRow():
            _note_reinforcement(row, notes)
        case CompletionRow() if not row.completion:
            notes.add("empty_assistant_message", "The completion is empty.", "$.completion")


def missing_system(line: int) -> Finding:
    """The one word about a row that is otherwise plain, said without ceremony: there may be millions of them."""
    return Finding(rule="missing_system_message", what=_NO_SYSTEM, line=line, json_path="$.messages")


def _note_chat(row: ChatRow, notes: RowNotes) -> None:
    places = _places(row.messages, "$.messages")
    if not _is_filled(places, "messages is empty.", "$.messages", notes):
        return
    last, path = places[-1]
    if all(message.role != "assistant" for message in row.messages):
        notes.add("example_missing_assistant_message", "There is no assistant message: nothing to learn.", "$.messages")
    elif last.role != "assistant":
        what = f"The last message is from {last.role!r}, not from the assistant."
        notes.add("last_message_not_assistant", what, f"{path}.role")
    elif not any(message.is_trained() for message in row.messages):
        notes.add("nothing_trained", "Every assistant message has weight 0: nothing to learn.", "$.messages")
    _note_messages(places, notes)
    _note_speakers(row.messages, "$.messages", notes)
    _note_tools(places, row.tools, row.functions, row.parallel_tool_calls, "$", notes)


def _note_preference(row: PreferenceRow, notes: RowNotes) -> None:
    given = _places(row.input.messages, "$.input.messages")
    if _is_filled(given, "input.messages is empty.", "$.input.messages", notes):
        _note_messages(given, notes)
        _note_speakers(row.input.messages, "$.input.messages", notes)
    for name, output in (
        ("preferred_output", row.preferred_output),
        ("non_preferred_output", row.non_preferred_output),
    ):
        _note_output(name, given, output, row.input, notes)
    if row.preferred_output == row.non_preferred_output:
        what = "The preferred and the other output are the same: there is nothing to prefer."
        notes.add("same_outputs", what, "$.non_preferred_output")


def _note_output(name: str, given: list[Place], output: list[Message], input: PreferenceInput, notes: RowNotes) -> None:
    path = f"$.{name}"
    if all(message.role != "assistant" for message in output):
        notes.add("example_missing_assistant_message", f"{name} has no assistant message.", path)
    places = _places(output, path)
    for message, where in places:
        if message.role not in _ANSWERING:
            what = f"A message from {message.role!r} stands in {name}: it belongs into input."
            notes.add("misplaced_role", what, f"{where}.role")
    _note_messages(places, notes)
    _note_tools([*given, *places], input.tools, None, input.parallel_tool_calls, "$.input", notes)


def _note_reinforcement(row: ReinforcementRow, notes: RowNotes) -> None:
    places = _places(row.messages, "$.messages")
    if not _is_filled(places, "messages is empty.", "$.messages", notes):
        return
    if is_deep(row.extras):
        notes.add("deep_nesting", TOO_DEEP, "$")
    last, path = places[-1]
    if last.role != "user":
        what = f"The last message is from {last.role!r}; a prompt for reinforcement ends with the user."
        notes.add("last_message_not_user", what, f"{path}.role")
    _note_messages(places, notes)
    _note_tools(places, row.tools, None, None, "$", notes)


def _places(messages: Sequence[Message], path: str) -> list[Place]:
    return [(message, f"{path}[{index}]") for index, message in enumerate(messages)]


def _is_filled(places: list[Place], what: str, path: str, notes: RowNotes) -> bool:
    if not places:
        notes.add("empty_messages", what, path)
    if len(places) > MAX_MESSAGES:
        what = f"{len(places):,} messages; a chat request takes at most {MAX_MESSAGES:,}."
        notes.add("too_many_messages", what, path)
    return bool(places)


def _note_messages(places: list[Place], notes: RowNotes) -> None:
    for message, path in places:
        if message.weight is not None and message.role != "assistant":
            notes.add("invalid_weight", "weight stands on a message that is not from the assistant.", f"{path}.weight")
        if (message.tool_calls is not None or message.function_call is not None) and message.role != "assistant":
            notes.add("misplaced_tool_calls", "A message that is not from the assistant calls a tool.", path)
        if message.role == "function" and message.name is None:
            notes.add("message_missing_key", 'The function message has no "name".', path)
        _note_content(message, path, notes)


def _note_content(message: Message, path: str, notes: RowNotes) -> None:
    calls = bool(message.tool_calls or message.function_call) and message.role == "assistant"
    if message.content is None and not calls:
        also = " (a refusal is not rendered: write it as content)" if message.refusal is not None else ""
        notes.add("missing_content", f"The message has no content{also}.", f"{path}.content")
    elif message.is_trained() and not message.text() and not calls:
        notes.add("empty_assistant_message", "The assistant message is empty.", f"{path}.content")


def _note_speakers(messages: Sequence[Message], path: str, notes: RowNotes) -> None:
    roles = {message.role for message in messages}
    if "user" not in roles:
        notes.add("missing_user_message", "The conversation has no user message.", path)
    if roles.isdisjoint(INSTRUCTING):
        notes.add("missing_system_message", _NO_SYSTEM, path)


def _note_tools(
    places: list[Place], tools: Tools, functions: Tools, parallel: bool | None, base: str, notes: RowNotes
) -> None:
    is_quiet = tools is None and functions is None and parallel is None
    if is_quiet and all(m.role != "tool" and m.tool_calls is None and m.function_call is None for m, _ in places):
        return
    note_tools(places, tools, functions, parallel, base, notes)

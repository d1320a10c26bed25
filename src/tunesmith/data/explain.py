"""All that is wrong with one line, for people: slow, and used only where the fast decoder or a rule stumbled.

A message with a wrong key is read without it, so that the other faults of the row are found in the same pass.
"""

from typing import Any, get_type_hints

import msgspec

from tunesmith.data.conversation import note_row
from tunesmith.data.findings import Finding
from tunesmith.data.foreign import normal_role, suggestion
from tunesmith.data.json_line import parse_line
from tunesmith.data.notes import RowNotes, cut, kind_name, member, plain_words, quoted
from tunesmith.data.rows import (
    ROLES,
    ChatRow,
    CompletionRow,
    Kind,
    Message,
    PreferenceInput,
    PreferenceRow,
    ReinforcementRow,
)

OLD_NAMES = {"preferred_completion": "preferred_output", "non_preferred_completion": "non_preferred_output"}
_CHAT_KEYS = tuple(field.name for field in msgspec.structs.fields(ChatRow))
_INPUT_KEYS = tuple(field.name for field in msgspec.structs.fields(PreferenceInput))
_PREFERENCE_KEYS = tuple(field.name for field in msgspec.structs.fields(PreferenceRow))
_MESSAGE_TYPES: dict[str, Any] = get_type_hints(Message)
_STAND_IN = "?"
"""Content in the place of one that could not be read and was noted, so that it is not noted again as missing."""

_OBJECTS: Any = list[dict[str, Any]] | None


def explain_row(raw: bytes, line: int, kind: Kind | None = None) -> list[Finding]:
    """All findings of one line, at most ``notes.MAX_ROW_FINDINGS``.

    ``kind`` is what the file's rows are; without it the row is judged as what it seems to be.
    """
    notes = RowNotes(line)
    value = parse_line(raw, notes)
    if isinstance(value, dict):
        _explain_object(value, kind or guess_kind(value) or "chat", notes)
    elif not notes.has_errors():
        what = f"The line is not a JSON object but {kind_name(value)}.{_as_rows(value)}"
        notes.add("data_type", what, "$")
    return notes.findings()


def _as_rows(value: object) -> str:
    """What to do with a list that holds the rows."""
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return ""
    return f" It holds {len(value):,} objects: write each of them on a line of its own, without the brackets."


def guess_kind(value: dict[str, Any]) -> Kind | None:
    """What an object seems meant as; None when it is no kind of row."""
    if "messages" in value:
        return "reinforcement" if _is_prompt(value) else "chat"
    if value.keys() & {*OLD_NAMES, *OLD_NAMES.values()}:
        return "preference"
    if "prompt" in value and "completion" in value:
        return "completion"
    return None


def _is_prompt(value: dict[str, Any]) -> bool:
    """Reinforcement rows end with the user and bring keys for their graders."""
    messages = value["messages"]
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "user" and not value.keys() <= {*_CHAT_KEYS}


def _explain_object(value: dict[str, Any], kind: Kind, notes: RowNotes) -> None:
    meant = guess_kind(value)
    if meant is not None and _family(meant) != _family(kind):
        notes.add("mixed_kinds", f"This is a {meant} row where {kind} rows are expected.", "$")
        kind = meant
    match kind:
        case "chat":
            _explain_chat(value, notes)
        case "preference":
            _explain_preference(value, notes)
        case "reinforcement":
            _explain_reinforcement(value, notes)
        case "completion":
            _explain_completion(value, notes)


def _family(kind: Kind) -> str:
    """Chats and prompts for reinforcement look alike: a chat without its answer is a faulty chat."""
    return "chat" if kind == "reinforcement" else kind


def _explain_chat(value: dict[str, Any], notes: RowNotes) -> None:
    if not _has_messages(value, notes):
        return
    _note_extra_keys(value, _CHAT_KEYS, "unrecognized_key", "$", notes)
    messages = _messages(value["messages"], "$.messages", notes)
    options = _options(value, _CHAT_KEYS, "$", notes)
    if messages is not None:
        note_row(ChatRow(messages, **options), notes)


def _explain_reinforcement(value: dict[str, Any], notes: RowNotes) -> None:
    if not _has_messages(value, notes):
        return
    messages = _messages(value["messages"], "$.messages", notes)
    tools = _options(value, ("tools",), "$", notes).get("tools")
    if messages is not None:
        note_row(ReinforcementRow(messages, tools, {}), notes)


def _has_messages(value: dict[str, Any], notes: RowNotes) -> bool:
    if "messages" not in value:
        keys = ", ".join(sorted(value)[:20]) or "none"
        what = f'"messages" is missing (keys found: {cut(keys)}).{suggestion(value)}'
        notes.add("missing_messages_list", what, "$")
    return "messages" in value


def _explain_preference(value: dict[str, Any], notes: RowNotes) -> None:
    value = {OLD_NAMES.get(key, key): inner for key, inner in value.items()}
    _note_extra_keys(value, _PREFERENCE_KEYS, "unrecognized_key", "$", notes)
    given = value.get("input")
    outputs = [_output(value, name, notes) for name in ("preferred_output", "non_preferred_output")]
    if not isinstance(given, dict) or "messages" not in given:
        what = '"input" must be an object with "messages": the conversation before the answer.'
        notes.add("missing_key" if "input" not in value else "wrong_type", what, "$.input")
        return
    _note_extra_keys(given, _INPUT_KEYS, "unrecognized_key", "$.input", notes)
    messages = _messages(given["messages"], "$.input.messages", notes)
    options = _options(given, _INPUT_KEYS, "$.input", notes)
    preferred, other = outputs
    if messages is not None and preferred is not None and other is not None:
        note_row(PreferenceRow(PreferenceInput(messages, **options), preferred, other), notes)


def _output(value: dict[str, Any], name: str, notes: RowNotes) -> list[Message] | None:
    if name not in value:
        notes.add("missing_key", f'"{name}" is missing: a list of messages.', f"$.{name}")
        return None
    return _messages(value[name], f"$.{name}", notes)


def _explain_completion(value: dict[str, Any], notes: RowNotes) -> None:
    keys = ("prompt", "completion")
    _note_extra_keys(value, keys, "unrecognized_key", "$", notes)
    for key in keys:
        if key not in value:
            notes.add("missing_key", f'"{key}" is missing.', f"$.{key}")
        elif not isinstance(value[key], str):
            notes.add("wrong_type", f'"{key}" is {kind_name(value[key])}, not a string.', f"$.{key}")
    if value.get("completion") == "":
        note_row(CompletionRow("", ""), notes)


def _note_extra_keys(value: dict[str, Any], known: tuple[str, ...], rule: str, path: str, notes: RowNotes) -> None:
    for key in sorted(value.keys() - set(known)):
        notes.add(rule, f'Contains an extra "{cut(key)}".', member(path, key))


def _options(value: dict[str, Any], keys: tuple[str, ...], path: str, notes: RowNotes) -> dict[str, Any]:
    """The keys beside messages whose types are right; the others are noted."""
    types = {"tools": _OBJECTS, "functions": _OBJECTS, "parallel_tool_calls": bool | None}
    names = [key for key in keys if key in types and key in value]
    return {key: value[key] for key in names if _converted(value[key], types[key], f"{path}.{key}", notes)}


def _messages(value: object, path: str, notes: RowNotes) -> list[Message] | None:
    """The messages as far as they can be read; None when one of them cannot be read at all."""
    if not isinstance(value, list):
        name = path.rpartition(".")[2]
        notes.add("missing_messages_list", f'"{name}" is {kind_name(value)}, not a list.', path)
        return None
    read = [_message(message, f"{path}[{index}]", notes) for index, message in enumerate(value)]
    whole = [message for message in read if message is not None]
    return whole if len(whole) == len(read) else None


def _message(value: object, path: str, notes: RowNotes) -> Message | None:
    if not isinstance(value, dict):
        notes.add("wrong_type", f"The message is {kind_name(value)}, not an object.", path)
        return None
    has_role = _has_role(value, path, notes)
    _note_extra_keys(value, tuple(_MESSAGE_TYPES), "message_unrecognized_key", path, notes)
    known = {key: _field(key, value[key], path, notes) for key in _MESSAGE_TYPES if key in value and key != "role"}
    if not has_role:
        return None
    if any(read is None and value[key] is not None for key, read in known.items()):
        known["content"] = known.get("content") or _STAND_IN
    return Message(value["role"], **known)


def _has_role(value: dict[str, Any], path: str, notes: RowNotes) -> bool:
    if "role" not in value:
        keys = cut(", ".join(sorted(value)[:20]) or "none")
        notes.add("message_missing_key", f'The message has no "role" (keys found: {keys}).', path)
    elif value["role"] not in ROLES:
        role = value["role"]
        is_by_hand = not isinstance(role, str) or normal_role(role) is None
        notes.add("unrecognized_role", f"The role is {quoted(role)}.", f"{path}.role", is_by_hand=is_by_hand)
    else:
        return True
    return False


def _field(key: str, value: Any, path: str, notes: RowNotes) -> Any:
    """The typed value of one key of a message; None when it cannot be read, which is noted."""
    where = f"{path}.{key}"
    if key == "content" and isinstance(value, list) and _note_parts(value, where, notes):
        return None
    rule = "invalid_weight" if key == "weight" else "wrong_type"
    return _converted(value, _MESSAGE_TYPES[key], where, notes, rule)


def _converted(value: Any, type: Any, path: str, notes: RowNotes, rule: str = "wrong_type") -> Any:
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as bad:
        what, _, inner = str(bad).partition(" - at `$")
        if rule == "invalid_weight":
            what = f"The weight is {quoted(value)}; it must be the whole number 0 or 1"
        notes.add(rule, f"{cut(plain_words(what))}.", path + inner.rstrip("`"))
        return None


def _note_parts(parts: list[Any], path: str, notes: RowNotes) -> bool:
    """Note images, and parts that are neither text nor images. True when there was one."""
    types = [part.get("type") if isinstance(part, dict) else "text" for part in parts]
    images = [index for index, type in enumerate(types) if type == "image_url"]
    if images:
        what = f"{len(images)} {'image' if len(images) == 1 else 'images'}, which no model here can see."
        notes.add("image_content", what, f"{path}[{images[0]}]")
    others = [index for index, type in enumerate(types) if type not in ("text", "image_url")]
    for index in others:
        what = f"The part is of the type {quoted(types[index])}."
        notes.add("unsupported_content_part", what, f"{path}[{index}].type")
    return bool(images or others)

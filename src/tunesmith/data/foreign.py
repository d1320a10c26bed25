"""Rows of other systems: what they are called, and how to write them here."""

from typing import Any

from tunesmith.data.rows import ROLES, Role

_CHAT = '{"messages": [{"role": "user", "content": %s}, {"role": "assistant", "content": %s}]}'
_PAIRS = (
    ("question", "answer"),
    ("prompt", "response"),
    ("prompt", "output"),
    ("input", "output"),
    ("query", "response"),
    ("question", "response"),
    ("instruction", "response"),
    ("instruction", "output"),
    ("source", "target"),
    ("text", "label"),
)

_USER: Role = "user"
_ASSISTANT: Role = "assistant"
_NORMAL_ROLES: dict[str, Role] = {
    **{role: role for role in ROLES},
    **dict.fromkeys(("ai", "bot", "chatbot", "chatgpt", "gpt", "model"), _ASSISTANT),
    **dict.fromkeys(("human", "prompter"), _USER),
}


def normal_role(name: str) -> Role | None:
    """The role that another program calls so, or writes in capitals; None for one that nobody knows."""
    return _NORMAL_ROLES.get(name.strip().lower())


def suggestion(value: dict[str, Any]) -> str:
    """A sentence on how to write a row of another system, with a space before it; empty when it is not known."""
    if {"chosen", "rejected"} <= value.keys():
        return (
            ' It looks like a preference pair: write {"input": {"messages": [...]}, "preferred_output": [...],'
            ' "non_preferred_output": [...]}.'
        )
    for key in ("conversations", "conversation", "dialog", "turns"):
        if isinstance(value.get(key), list):
            return f' "{key}" looks like a conversation: name it "messages", and give each message role and content.'
    if {"instruction", "input", "output"} <= value.keys():
        asked = "<instruction, then input>"
        return f" It looks like an instruction with its output: write {_CHAT % (asked, '<output>')}."
    for asked, answered in _PAIRS:
        if asked in value and answered in value:
            return f" {asked} and {answered} look like a pair: write {_CHAT % (f'<{asked}>', f'<{answered}>')}."
    if {"role", "content"} <= value.keys():
        return ' It looks like a single message: a line holds a whole conversation, {"messages": [...]}.'
    return ""

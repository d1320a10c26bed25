"""What the teacher is asked: first for a user's message as the plan wants it, then for the answer to that message."""

import hashlib
import re
from typing import Any, Literal

import msgspec

from tunesmith.data.generate.plan import Slot
from tunesmith.data.generate.request import Length

Step = Literal["prompt", "answer"]
ChatMessage = dict[str, Any]

PROMPT_TOKENS: dict[Length, int] = {"short": 96, "medium": 192, "long": 384}
_LENGTH_WORDS: dict[Length, str] = {
    "short": "one short sentence",
    "medium": "two or three sentences",
    "long": "a paragraph that tells the situation first",
}
_PROMPT_TEMPERATURE = 0.9
"""Messages should differ."""
_ANSWER_TEMPERATURE = 0.2
"""Answers should be right."""
_WORDS_PER_TOKEN = 0.5
"""Fewer than English has, so that an answer that keeps to it is not cut off."""
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_CALL = 48
"""What a chat template may add by itself."""

_ASK_SYSTEM = (
    "You write the messages that people send to an assistant. Write exactly one message, in the first person, as the "
    "person would type it. Write nothing else: no heading, no quotation marks, no answer."
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the teacher."""

    messages: list[ChatMessage]
    max_tokens: int
    temperature: float
    seed: int

    @property
    def bound(self) -> tuple[int, int]:
        """About the most (prompt, completion) tokens that the call can take, in the usual tokenizers."""
        num_prompt_tokens = _TOKENS_PER_CALL + sum(_token_bound(message["content"]) for message in self.messages)
        return num_prompt_tokens, self.max_tokens


def ask_for_prompt(slot: Slot, seed: int) -> Question:
    """Ask for the user's message of this slot."""
    parts = []
    if slot.passage is not None:
        heading = f" (from {slot.passage.heading!r})" if slot.passage.heading else ""
        parts.append(
            f"Write a message whose answer stands in this text{heading}:\n\n<text>\n{slot.passage.text}\n</text>"
        )
        parts.append("The person has not seen the text: do not mention it.")
    elif slot.topic:
        parts.append(f"Write a message about this topic: {slot.topic}")
    if slot.examples:
        shown = "\n".join(f"<message>{example.prompt}</message>" for example in slot.examples)
        parts.append(f"Write a new message of the same kind as these, that asks for something else:\n\n{shown}")
    parts.append(f"Tone: {slot.tone}. Length: {_LENGTH_WORDS[slot.length]}.")
    parts.append("Use the language of the text above." if slot.passage or slot.examples else "")
    messages = [_message("system", _ASK_SYSTEM), _message("user", "\n\n".join(filter(None, parts)))]
    return Question(
        messages=messages,
        max_tokens=PROMPT_TOKENS[slot.length],
        temperature=_PROMPT_TEMPERATURE,
        seed=_call_seed(seed, slot.number, "prompt"),
    )


def ask_for_answer(slot: Slot, prompt: str, system: str, max_tokens: int, seed: int) -> Question:
    """Ask for the answer. Examples stand before it as turns; a passage stands in the system message, and never in the
    row that is made of it."""
    messages = [_message("system", _answer_system(slot, system, max_tokens))]
    for example in slot.examples:
        messages += [_message("user", example.prompt), _message("assistant", example.answer)]
    messages.append(_message("user", prompt))
    return Question(
        messages=messages,
        max_tokens=max_tokens,
        temperature=_ANSWER_TEMPERATURE,
        seed=_call_seed(seed, slot.number, "answer"),
    )


def bound_of_slot(slot: Slot, system: str, max_answer_tokens: int) -> tuple[int, int]:
    """About the most (prompt, completion) tokens that both calls of a slot can take."""
    first = ask_for_prompt(slot, 0)
    second = ask_for_answer(slot, "", system, max_answer_tokens, 0)
    return first.bound[0] + second.bound[0] + first.max_tokens, first.max_tokens + second.max_tokens


def clean_answer(text: str) -> str:
    """What a teacher said, without the thoughts that reasoning models put before it."""
    return re.sub(r"(?s)^\s*<think>.*?(</think>|$)", "", text).strip()


def clean_prompt(text: str) -> str:
    """A message, without the marks that some teachers put around it."""
    text = clean_answer(text)
    if text.startswith("<message>"):
        text = text.removeprefix("<message>").removesuffix("</message>").strip()
    text = re.sub(r"^(?:\*\*)?(?:User|Message|Question)(?:\*\*)?:(?:\*\*)?\s+", "", text)
    quoted = re.fullmatch(r"[\"“']([^\"“”]*)[\"”']", text, flags=re.DOTALL)
    return (quoted.group(1) if quoted else text).strip()


def _answer_system(slot: Slot, system: str, max_tokens: int) -> str:
    """What the row's own system prompt is, and what only the teacher is told."""
    parts = [system] if system else []
    if slot.passage is not None:
        parts.append(
            "Answer from the following text only. Do not mention that there is a text. If it does not hold the answer, "
            f"say that you do not know.\n\n<text>\n{slot.passage.text}\n</text>"
        )
    if not slot.examples:
        parts.append(f"Answer in at most {max(5, round(max_tokens * _WORDS_PER_TOKEN))} words.")
    return "\n\n".join(parts) or "Answer as in the examples."


def _message(role: str, content: str) -> ChatMessage:
    return {"role": role, "content": content}


def _token_bound(text: str) -> int:
    return _TOKENS_PER_MESSAGE + len(text.encode()) // _BYTES_PER_TOKEN


def _call_seed(seed: int, number: int, step: Step) -> int:
    """A seed of its own for each call, within what every server takes."""
    digest = hashlib.sha256(f"{seed}:{number}:{step}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1

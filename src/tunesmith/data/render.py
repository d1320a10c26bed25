"""Chat templates: from messages to the text that a model sees. The same templates train and serve.

Templates are Jinja, run in a sandbox, with the functions that transformers gives them (``tojson`` that keeps
characters and key order, ``raise_exception``, ``strftime_now``).
"""

import datetime
import json
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
import msgspec

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]] | None

TEMPLATE_FILE = "chat_template.jinja"


class TemplateError(Exception):
    """The template refuses these messages; the text is the template's own."""


class ChatTemplate:
    """A compiled chat template with the special tokens it may name."""

    def __init__(self, source: str, special_tokens: dict[str, str], today: datetime.date | None = None):
        """``today`` is what a template with a date in it shows: a run renders all its rows on one day."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = self._strftime_now
        self.source = source
        self.is_dated = "strftime_now" in source
        self.today = today or datetime.date.today()  # noqa: DTZ011 - local time, as transformers
        self.special_tokens = special_tokens
        self._template = environment.from_string(source)

    @classmethod
    def from_dir(cls, folder: Path, today: datetime.date | None = None) -> "ChatTemplate":
        """The template in ``chat_template.jinja``, with the token names in ``tokenizer_config.json``."""
        config = msgspec.json.decode((folder / "tokenizer_config.json").read_bytes())
        names = {key: value for key, value in config.items() if key.endswith("_token") and isinstance(value, str)}
        return cls((folder / TEMPLATE_FILE).read_text(encoding="utf-8"), names, today)

    def render(self, messages: Messages, tools: Tools, *, add_generation_prompt: bool) -> str:
        """The text of a conversation; with a generation prompt it ends where the assistant begins to speak."""
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, **self.special_tokens
            )
        except jinja2.TemplateError as error:
            raise TemplateError(str(error)) from error

    def _strftime_now(self, format: str) -> str:  # the name that templates use
        return self.today.strftime(format)


def _to_json(value: object, indent: int | None = None, **_: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)

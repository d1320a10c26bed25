"""``tunesmith chat``: one question, or a conversation."""

import sys
from collections.abc import Iterator

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.objects import Document
from tunesmith.core.errors import InvalidRequest, TunesmithError
from tunesmith.core.settings import load_settings


def chat(
    model: str,
    message: str | None = None,
    *,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    as_json: show.AsJson = False,
) -> None:
    """Ask once, or hold a conversation.

    Parameters
    ----------
    model
        A base model, a tuned model or a checkpoint.
    message
        What to say.
    system
        The system prompt: use the one that the model was tuned with.
    temperature
        0 gives the likeliest answer every time.
    max_tokens
        The longest answer.
    """
    body: Document = {"model": model, "temperature": temperature, "max_completion_tokens": max_tokens}
    body = {name: value for name, value in body.items() if value is not None}
    messages = [{"role": "system", "content": system}] if system else []
    with Client.from_settings(load_settings()) as client:
        if message is None:
            _converse(client, body, messages, as_json)
            return
        body["messages"] = [*messages, {"role": "user", "content": message}]
        if as_json:
            show.json_bytes(client.complete(body).document)
        else:
            _print_pieces(client.stream_completion(body))


def _converse(client: Client, body: Document, messages: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        raise InvalidRequest("--json needs a message.", mend="Give the message after the model's name.")
    while (said := _read_line()) is not None:
        if not said.strip():
            continue
        messages.append({"role": "user", "content": said})
        try:
            heard = _print_pieces(client.stream_completion({**body, "messages": messages}))
        except TunesmithError as error:
            # The conversation goes on: the question that got no answer is taken back.
            show.note(f"tunesmith: {error}")
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": heard})


def _read_line() -> str | None:
    """The next line a person types, or the next line of a pipe; None at the end."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _print_pieces(pieces: Iterator[str]) -> str:
    heard = ""
    for piece in pieces:
        heard += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    show.line("")
    return heard

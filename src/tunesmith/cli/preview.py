"""``tunesmith files preview``: one row as a model is trained on it."""

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import msgspec

from tunesmith.cli import show
from tunesmith.cli.client import Client
from tunesmith.cli.data_paths import find_tokenizer, is_id, local_file
from tunesmith.cli.objects import Answer
from tunesmith.core.errors import Unavailable
from tunesmith.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from tunesmith.data.preview import Preview, PreviewSequence

COLOURS = {"trained": "\x1b[32m", "rejected": "\x1b[31m", "context": "", "special": "\x1b[2m"}
PLAIN = "\x1b[0m"


def preview(
    file: str,
    *,
    line: int = 1,
    model: str | None = None,
    completions: Literal["chat", "plain"] | None = None,
    as_json: show.AsJson = False,
) -> None:
    """Show what a model sees of one row, and what it learns.

    The tokens are made by the code that feeds the trainer.

    Parameters
    ----------
    file
        A path, or a file's id.
    line
        The row's line, from 1.
    model
        A base model; with a file's id also a tuned one. By default the built-in model.
    completions
        How a prompt with its completion is read, as in jobs create.
    """
    from tunesmith.data.preview import Preview

    settings = load_settings()
    if is_id(file):
        with Client.from_settings(settings) as client:
            query = {"line": line, "model": model, "completions": completions}
            reply = client.ask_of_file(Preview, file, "preview", query)
    else:
        reply = _preview_here(settings, file, line, model, completions)
    show.answer(reply, as_json, _show_preview)


def _preview_here(
    settings: Settings, file: str, line: int, model: str | None, completions: Literal["chat", "plain"] | None
) -> "Answer[Preview]":
    from tunesmith.data.preview import preview_line

    path = local_file(file)
    found = find_tokenizer(settings, model, completions)
    if found is None:
        raise Unavailable(
            "No model is installed, and a row has tokens for a model only.",
            mend="Fetch one with: tunesmith models pull",
        )
    shown = preview_line(path, line, found[0])
    return Answer(shown, msgspec.json.encode(shown))


def _show_preview(shown: "Preview") -> None:
    num_learned = sum(part.num_supervised_tokens for part in shown.sequences if part.output != "rejected")
    learned = f"{num_learned:,} {'preferred' if shown.kind == 'preference' else 'learned'}"
    show.line(f"line {shown.line}, {shown.kind}: {show.count(shown.num_tokens, 'token')}, {learned}")
    for number, sequence in enumerate(shown.sequences, start=1):
        if len(shown.sequences) > 1:
            show.line(f"\n{sequence.output or f'sequence {number}'}: {show.count(sequence.num_tokens, 'token')}")
        _show_sequence(sequence)
    show.line(f"\ndigest {shown.digest}")


def _show_sequence(sequence: "PreviewSequence") -> None:
    """Colours on a terminal; where nobody sees them, a line for each run of tokens with the same mark."""
    show.line("")
    for mark, tokens in groupby(sequence.tokens, key=lambda token: token.mark):
        text = "".join(token.text for token in tokens)
        if sys.stdout.isatty():
            sys.stdout.write(f"{COLOURS[mark]}{text}{PLAIN}")
        else:
            show.line(f"{mark}\t{msgspec.json.encode(text).decode()}")
    if sys.stdout.isatty():
        show.line("")
    left = sequence.num_tokens - len(sequence.tokens)
    if left:
        show.line(f"and {show.count(left, 'more token')}")

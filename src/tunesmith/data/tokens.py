"""From a row to token ids with their trained marks: the one function that checks, shows and trains.

The mask comes from rendering the conversation step by step: what the template adds after the generation prompt is
what the model must learn to say, up to and including the end-of-turn token. No ``{% generation %}`` is needed.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec
from tokenizers import Tokenizer

from tunesmith.core.errors import DataError
from tunesmith.data.formats import ChatRow, CompletionRow, ReinforcementRow, Row, conversations
from tunesmith.data.render import ChatTemplate, Messages, TemplateError, Tools
from tunesmith.data.shapes import MARKS, Shapes, Tokens, Turn
from tunesmith.data.words import TOKEN_BYTES, TextEncoder, unpack

Completions = Literal["chat", "plain"]
"""How a prompt with its completion is trained: as a question and its answer, or as one raw text."""


class TokenSequence(msgspec.Struct, frozen=True):
    """Token ids of one conversation, and which of them are learned (predicted under the loss)."""

    line: int
    token_ids: "array[int]"
    """int32."""
    is_trained: bytes
    """A byte a token, 1 where it is learned."""

    @classmethod
    def of(cls, line: int, token_ids: Iterable[int], is_trained: Iterable[bool]) -> "TokenSequence":
        return cls(line, array("i", token_ids), bytes(is_trained))

    @property
    def num_supervised_tokens(self) -> int:
        return self.is_trained.count(1)


class TokenizerRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """All that a row tokenizer is made of, for another process."""

    tokenizer_json: str
    template: str
    special_tokens: dict[str, str]
    today: date
    completions: Completions | None


class RowTokenizer:
    """Renders and tokenises rows for one model. Each distinct piece of text is tokenised once."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, completions: Completions | None = None):
        """``completions``: how a prompt with its completion is read; None refuses such a row."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._encoder = TextEncoder(tokenizer)
        self._template = template
        self.completions = completions
        self._special = self._encoder.special_pattern()
        self._special_letters = self._encoder.special_letters()
        self.special_ids = self._encoder.special_ids
        self.bos_id = _id_of(tokenizer, template, "bos_token")
        self._eos_id = _id_of(tokenizer, template, "eos_token")
        self._shapes = None
        if self._encoder.can_split:
            self._shapes = Shapes(self._encoder, self._cut_sample, self._join_sample)
        self.identity = _identity(tokenizer, template, completions)
        """SHA-256 of tokenizer and template: rows of equal identity have equal tokens."""

    @classmethod
    def from_dir(
        cls,
        folder: Path,
        template_dir: Path | None = None,
        *,
        completions: Completions | None = None,
        today: date | None = None,
    ) -> "RowTokenizer":
        """Reads tokenizer.json and the template; a tuned model's own template may lie in ``template_dir``."""
        template = ChatTemplate.from_dir(folder, today)
        if template_dir is not None and (template_dir / "chat_template.jinja").exists():
            source = (template_dir / "chat_template.jinja").read_text(encoding="utf-8")
            template = ChatTemplate(source, template.special_tokens, today)
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), template, completions)

    @classmethod
    def from_recipe(cls, recipe: TokenizerRecipe) -> "RowTokenizer":
        """The same tokenizer as the one whose ``recipe`` it is."""
        template = ChatTemplate(recipe.template, recipe.special_tokens, recipe.today)
        return cls(Tokenizer.from_str(recipe.tokenizer_json), template, recipe.completions)

    def recipe(self) -> TokenizerRecipe:
        return TokenizerRecipe(
            tokenizer_json=self._tokenizer.to_str(),
            template=self._template.source,
            special_tokens=self._template.special_tokens,
            today=self._template.today,
            completions=self.completions,
        )

    @property
    def template(self) -> ChatTemplate:
        return self._template

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text. Special tokens are recognised; none is added."""
        return unpack(self._encoder.encode(text)).tolist()

    def prove(self, texts: Sequence[str]) -> None:
        """Make sure that these texts, and so others like them, are read as the tokenizer reads them."""
        self._encoder.prove(texts)

    def find_special(self, text: str) -> str | None:
        """The first special token that stands in the text as text."""
        if not any(first in text for first in self._special_letters):
            return None
        found = self._special.search(text)
        return None if found is None else found[0]

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token; one that ends within a character has none, and the one that ends it has all of it."""
        return self._encoder.token_texts(token_ids)

    def encode_prompt(self, messages: Messages, tools: Tools = None) -> list[int]:
        """Token ids that a server feeds before it lets the model answer."""
        return self.encode(self._template.render(messages, tools, add_generation_prompt=True))

    def encode_row(self, row: Row, line: int) -> list[TokenSequence]:
        """The sequences of one row, what is learned marked. Raises DataError when the template refuses the row.

        A preference row gives its chosen conversation, then the rejected one. A reinforcement row gives its prompt as a
        server feeds it, nothing learned. A completion is rendered as a chat or taken as it is, as ``completions`` says.
        """
        match row:
            case ChatRow():
                return self._encode_chat(row, line)
            case ReinforcementRow():
                (prompt,) = conversations(row)
                return [self._encode_context(prompt, line)]
            case CompletionRow() if self.completions != "chat":
                return [self._encode_completion(row, line)]
        return [sequence for chat in conversations(row) for sequence in self._encode_chat(chat, line)]

    def _encode_context(self, chat: ChatRow, line: int) -> TokenSequence:
        try:
            token_ids = self.encode_prompt(chat.template_messages(), chat.template_tools())
        except TemplateError as error:
            raise _refusal(error, line) from None
        return TokenSequence.of(line, token_ids, [False] * len(token_ids))

    def _encode_completion(self, row: CompletionRow, line: int) -> TokenSequence:
        """The raw texts, each read alone as a server reads a prompt, and the token that ends a text."""
        if self.completions is None or self._eos_id is None:
            raise DataError(
                "The row is a prompt with its completion, and the model is a chat model.",
                line=line,
                code="completion_for_chat_model",
                mend='Set "tunesmith": {"completions": "chat"} in the job, --completions chat on the command line: the '
                "prompt becomes the user's message and the completion the assistant's.",
            )
        prompt, completion = self.encode(row.prompt), [*self.encode(row.completion), self._eos_id]
        return TokenSequence.of(line, prompt + completion, [False] * len(prompt) + [True] * len(completion))

    def _encode_chat(self, row: ChatRow, line: int) -> list[TokenSequence]:
        """One sequence, unless the template rewrites earlier turns.

        A template that drops, say, earlier reasoning renders each answer in another context than the last one saw; then
        every trained answer becomes a sequence of its own, which is what a server would feed (shared prefixes cost
        nothing in the trainer). Raises DataError when the template refuses the row or shows no end of turn.
        """
        tokens = None if self._shapes is None else self._shapes.encode(row)
        if tokens is not None:
            return [_sequence(line, tokens)]
        spans = self._spans(row, line)
        turns = _chain(spans)
        if turns is not None:
            return [_sequence(line, self._join(turns, line))]
        return [_sequence(line, self._join([span], line)) for span in spans if span.is_trained]

    def _spans(self, row: ChatRow, line: int) -> list[Turn]:
        """Every answer up to the last one that is trained, each with all that stands before it as its context."""
        messages, tools = row.template_messages(), row.template_tools()
        last = max(index for index, message in enumerate(row.messages) if message.is_trained())
        turns = [index for index in range(last + 1) if row.messages[index].role == "assistant"]
        try:
            texts = [self._render_turn(messages, tools, index, line) for index in turns]
        except TemplateError as error:
            raise _refusal(error, line) from None
        return [Turn(*text, row.messages[index].is_trained()) for text, index in zip(texts, turns, strict=True)]

    def _cut_sample(self, row: ChatRow) -> list[Turn] | None:
        return _chain(self._spans(row, line=0))

    def _join_sample(self, turns: list[Turn]) -> Tokens:
        return self._join(turns, line=0)

    def _render_turn(self, messages: Messages, tools: Tools, index: int, line: int) -> tuple[str, str]:
        """(text before the answer, text of the answer with what ends it) of the assistant message at ``index``."""
        before = self._template.render(messages[:index], tools, add_generation_prompt=True)
        after = self._template.render(messages[: index + 1], tools, add_generation_prompt=False)
        if not after.startswith(before):
            raise DataError(
                "The model's chat template does not continue its own generation prompt, so the answer cannot be found.",
                line=line,
                json_path=f"$.messages[{index}]",
                mend="Use a base model whose template renders the same text in training and serving.",
            )
        return before, after[len(before) :]

    def _join(self, turns: list[Turn], line: int) -> Tokens:
        """Ids and marks of turns that follow one another, without what follows the last learned token."""
        token_ids, marks = b"", b""
        for turn in turns:
            context, answer = self._encoder.encode(turn.context), self._encoder.encode(turn.answer)
            end = self._end_of_turn(unpack(answer), line)
            token_ids += context + answer
            marks += MARKS[False] * (len(context) // TOKEN_BYTES) + MARKS[turn.is_trained] * end
            marks = marks.ljust(len(token_ids) // TOKEN_BYTES, MARKS[False])
        end = marks.rfind(1) + 1
        return token_ids[: end * TOKEN_BYTES], marks[:end]

    def _end_of_turn(self, answer_ids: "array[int]", line: int) -> int:
        """Number of tokens up to and including the special token that ends the turn."""
        for position in range(len(answer_ids) - 1, -1, -1):
            if answer_ids[position] in self._encoder.special_ids:
                return position + 1
        raise DataError(
            "The model's chat template ends an answer without a special token: a tuned model would never stop.",
            line=line,
            mend="Use a base model whose template ends a turn.",
        )


def _sequence(line: int, tokens: Tokens) -> TokenSequence:
    token_ids, marks = tokens
    return TokenSequence(line, unpack(token_ids), marks)


def _chain(spans: list[Turn]) -> list[Turn] | None:
    """Each context without what the turns before it said; None when one does not begin with that."""
    turns: list[Turn] = []
    text = ""
    for span in spans:
        if not span.context.startswith(text):
            return None
        turns.append(Turn(span.context[len(text) :], span.answer, span.is_trained))
        text = span.context + span.answer
    return turns


def _refusal(error: TemplateError, line: int) -> DataError:
    return DataError(f"The model's chat template refuses the row: {error}", line=line, json_path="$.messages")


def _id_of(tokenizer: Tokenizer, template: ChatTemplate, name: str) -> int | None:
    token = template.special_tokens.get(name)
    return None if token is None else tokenizer.token_to_id(token)


def _identity(tokenizer: Tokenizer, template: ChatTemplate, completions: Completions | None) -> str:
    day = template.today if template.is_dated else None
    names = msgspec.json.encode([template.special_tokens, completions, day], order="sorted")
    parts = (tokenizer.to_str().encode(), template.source.encode(), names)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

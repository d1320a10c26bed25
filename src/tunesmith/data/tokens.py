"""From a row to token ids with their trained marks: the one function that checks, shows and trains.

The mask comes from rendering the conversation step by step: what the template adds after the generation prompt is
what the model must learn to say, up to and including the end-of-turn token. No ``{% generation %}`` is needed.
"""

import re
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from tunesmith.core.errors import DataError
from tunesmith.data.formats import ChatRow
from tunesmith.data.render import ChatTemplate, Messages, TemplateError, Tools

_PROBES = (
    "",
    " ",
    "a",
    "Hello world",
    " two  spaces",
    "line\nbreak\n",
    "tab\tä ö ü",
    "2024-01-31 x1y",
    "日本語 🙂",
    "a<b>c",
)
_MAX_CACHED_CHARS = 4096
_MAX_CACHE_ENTRIES = 200_000


class TokenSequence(msgspec.Struct, frozen=True):
    """Token ids of one conversation, and which of them are learned (predicted under the loss)."""

    line: int
    token_ids: list[int]
    is_trained: list[bool]

    @property
    def num_supervised_tokens(self) -> int:
        return sum(self.is_trained)


class RowTokenizer:
    """Renders and tokenises rows for one model. Each distinct piece of text is tokenised once."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate):
        self._tokenizer = tokenizer
        self._template = template
        special = {token.content: id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._special_ids = special
        self._end_ids = frozenset(special.values())
        longest_first = sorted(special, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if special else None
        self._cache: dict[str, list[int]] = {}
        if not self._is_split_exact():
            self._split = None

    @classmethod
    def from_dir(cls, folder: Path, template_dir: Path | None = None) -> "RowTokenizer":
        """Reads tokenizer.json and the template; a tuned model's own template may lie in ``template_dir``."""
        template = ChatTemplate.from_dir(folder)
        if template_dir is not None and (template_dir / "chat_template.jinja").exists():
            source = (template_dir / "chat_template.jinja").read_text(encoding="utf-8")
            template = ChatTemplate(source, template.special_tokens)
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), template)

    @property
    def template(self) -> ChatTemplate:
        return self._template

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text. Special tokens are recognised; none is added."""
        if self._split is None:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        ids: list[int] = []
        for piece in self._split.split(text):
            special = self._special_ids.get(piece)
            if special is not None:
                ids.append(special)
            elif piece:
                ids.extend(self._encode_piece(piece))
        return ids

    def encode_prompt(self, messages: Messages, tools: Tools = None) -> list[int]:
        """Token ids that a server feeds before it lets the model answer."""
        return self.encode(self._template.render(messages, tools, add_generation_prompt=True))

    def encode_row(self, row: ChatRow, line: int) -> list[TokenSequence]:
        """The sequences to train on for one row: one, unless the template rewrites earlier turns.

        A template that drops, say, earlier reasoning renders each answer in another context than the last one saw; then
        every trained answer becomes a sequence of its own, which is what a server would feed (shared prefixes cost
        nothing in the trainer). Raises DataError when the template refuses the row or shows no end of turn.
        """
        messages, tools = row.template_messages(), row.template_tools()
        turns = [index for index, message in enumerate(row.messages) if message.role == "assistant"]
        last = max(index for index in turns if row.messages[index].is_trained())
        try:
            spans = [self._turn(messages, tools, index, line) for index in turns if index <= last]
        except TemplateError as error:
            raise DataError(
                f"The model's chat template refuses the row: {error}", line=line, json_path="$.messages"
            ) from None
        trained = [row.messages[index].is_trained() for index in turns if index <= last]
        sequence = self._one_sequence(spans, trained, line)
        if sequence is not None:
            return [sequence]
        return [self._answer_sequence(span, line) for span, learn in zip(spans, trained, strict=True) if learn]

    def _turn(self, messages: Messages, tools: Tools, index: int, line: int) -> tuple[str, str]:
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

    def _one_sequence(self, spans: list[tuple[str, str]], trained: list[bool], line: int) -> TokenSequence | None:
        token_ids: list[int] = []
        is_trained: list[bool] = []
        text = ""
        for (before, answer), learn in zip(spans, trained, strict=True):
            if not before.startswith(text):
                return None
            context = self.encode(before[len(text) :])
            answer_ids = self.encode(answer)
            end = self._end_of_turn(answer_ids, line)
            token_ids += context + answer_ids
            is_trained += [False] * len(context) + [learn] * end + [False] * (len(answer_ids) - end)
            text = before + answer
        return TokenSequence(line, *_without_tail(token_ids, is_trained))

    def _answer_sequence(self, span: tuple[str, str], line: int) -> TokenSequence:
        context, answer_ids = self.encode(span[0]), self.encode(span[1])
        end = self._end_of_turn(answer_ids, line)
        return TokenSequence(line, context + answer_ids[:end], [False] * len(context) + [True] * end)

    def _end_of_turn(self, answer_ids: list[int], line: int) -> int:
        """Number of tokens up to and including the special token that ends the turn."""
        for position in range(len(answer_ids) - 1, -1, -1):
            if answer_ids[position] in self._end_ids:
                return position + 1
        raise DataError(
            "The model's chat template ends an answer without a special token: a tuned model would never stop.",
            line=line,
            mend="Use a base model whose template ends a turn.",
        )

    def _encode_piece(self, piece: str) -> list[int]:
        ids = self._cache.get(piece)
        if ids is None:
            ids = list(self._tokenizer.encode(piece, add_special_tokens=False).ids)
            if len(piece) <= _MAX_CACHED_CHARS and len(self._cache) < _MAX_CACHE_ENTRIES:
                self._cache[piece] = ids
        return ids

    def _is_split_exact(self) -> bool:
        """Whether tokenising between special tokens gives what tokenising the whole gives (not with prefix spaces)."""
        if self._split is None:
            return False
        special = next(iter(self._special_ids))
        texts = [a + special + b for a in _PROBES for b in _PROBES]
        return all(
            self.encode(text) == list(self._tokenizer.encode(text, add_special_tokens=False).ids) for text in texts
        )


def _without_tail(token_ids: list[int], is_trained: list[bool]) -> tuple[list[int], list[bool]]:
    """Without the tokens after the last trained one: nothing that is learned can see them."""
    end = len(is_trained)
    while end and not is_trained[end - 1]:
        end -= 1
    return token_ids[:end], is_trained[:end]

"""Text to token ids, exactly as Hugging Face's tokenizers give them, several times as fast.

A byte-level BPE tokenizer cuts text into words by a regular expression and then looks up each word alone, and words
repeat. So each distinct word is asked of the BPE model once. How to cut is derived from tokenizer.json and proven: on
a fixed set of nasty texts when the tokenizer is loaded, on each character that is not ASCII when it is first seen,
and on a sample of each data file (``TextEncoder.prove``). Whatever is not proven goes to the tokenizer itself.
"""

import random
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import regex
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = _CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The expression inside Hugging Face's ByteLevel pre-tokeniser."""
_GPT2_LONE_DIGITS = r"\p{N}|" + _CONTRACTIONS + r"| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
"""The same after Digits: each digit stands alone, and what follows a cut at a digit is not seen."""
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace("{1,3}", "")
_CUTS_BEFORE_A_SPACE = frozenset((_GPT2, _GPT2_LONE_DIGITS, _LLAMA_3, _QWEN_2))
"""Expressions that always cut before a space between two characters that are none, and look no further there: no word
of theirs has a space within, and none looks back."""
_ASCII_CLASSES = {"L": "a-zA-Z", "N": "0-9", "Lu": "A-Z", "Ll": "a-z", "M": "", "Lt": "", "Lm": "", "Lo": ""}

Packed = bytes
"""Token ids, 4 bytes each in the machine's order: joined at the speed of memory, and nothing to the collector."""

TOKEN_BYTES = 4
_MAX_WORD_CHARS = 64
_MAX_WORDS = 200_000
_MAX_CACHED_PIECE_CHARS = 16_384
_MAX_CACHED_CHARS = 4_000_000
_MAX_SEEN = 100_000

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
_NASTY_CHARACTERS = (
    "aZé߁Ω中ק가ไ١²Ⅷ½०'’sStmldvreLVſKİıﬁǅʰ_-.,;:!?()[]{}<>|/\\\"`~@#$%^&*+=0123456789"
    "   \t\n\r\x0b\x0c\x00\x1c\x1f\x85\xa0\u1680\u180e\u2003\u200b\u200d\u2028\u2029\u202f\u205f\u3000\ufeff"
    "\u0301\u0303\u093e\u20dd\ufe0f🙂👩🏽🇩🇪\U000e0067\U0001d7d8\ue000\ufffd\u0378"
)
_NUM_NASTY_TEXTS = 300


class TextEncoder:
    """Token ids of text, special tokens recognised, none added. Equal to ``Tokenizer.encode`` in every case."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        decoder = tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(id for id, token in decoder.items() if token.special)
        config = msgspec.json.decode(tokenizer.to_str())
        self._added_ids: dict[str, int] = {token["content"]: token["id"] for token in config["added_tokens"]}
        self._split = _splitter(config["added_tokens"])
        self._first_letters = sorted({content[0] for content in self._added_ids})
        """Most texts hold none of them, and need no search."""
        self._words: Callable[[str], Packed | None] | None = _word_encoder(tokenizer, config)
        self._forget()
        if not self.prove(_split_probes(self._added_ids)):
            self._split = None
        self.prove(_nasty_texts(self._added_ids))

    @property
    def is_fast(self) -> bool:
        """Whether words are looked up; else the tokenizer itself reads every distinct text."""
        return self._words is not None and self._split is not None

    def encode(self, text: str) -> Packed:
        if self._split is None:
            return self.encode_slowly(text)
        parts = []
        for piece in self._split.split(text):
            if piece:
                known = self._pieces.get(piece)
                parts.append(self._encode_piece(piece) if known is None else known)
        return b"".join(parts)

    def encode_plain(self, text: str) -> Packed | None:
        """Token ids of text that holds no added token; None when it does. Only where ``can_split``."""
        known = self._pieces.get(text)
        if known is not None:
            return None if text in self._added_ids else known
        if not text:
            return b""
        return None if self.has_added(text) else self._encode_piece(text)

    def has_added(self, text: str) -> bool:
        """Whether an added token stands in the text. Only where ``can_split``."""
        assert self._split is not None
        return any(first in text for first in self._first_letters) and self._split.search(text) is not None

    @property
    def can_split(self) -> bool:
        """Whether the pieces between added tokens may be read one by one."""
        return self._split is not None

    def split(self, text: str) -> list[str]:
        """Added tokens and the text between them, in order, none empty. Only where ``can_split``."""
        assert self._split is not None
        return [piece for piece in self._split.split(text) if piece]

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        stream = DecodeStream(skip_special_tokens=False)
        return [stream.step(self._tokenizer, token_id) or "" for token_id in token_ids]

    def special_pattern(self) -> "re.Pattern[str]":
        """Finds the text of special tokens."""
        return _any_of([content for content in self._added_ids if self.is_special(content)])

    def special_letters(self) -> list[str]:
        """What the special tokens begin with: a text without any of these holds none."""
        return sorted({content[0] for content in self._added_ids if self.is_special(content)})

    def is_special(self, piece: str) -> bool:
        return self._added_ids.get(piece) in self.special_ids

    def encode_slowly(self, text: str) -> Packed:
        """What ``encode`` must equal."""
        return pack(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def prove(self, texts: Sequence[str]) -> bool:
        """Compare with the tokenizer itself; at the first difference words are given up. True when all agree."""
        agrees = all(self.encode(text) == self.encode_slowly(text) for text in texts)
        if not agrees and self._words is not None:
            self._words = None
            self._forget()
            return self.prove(texts)
        return agrees

    def _encode_piece(self, piece: str) -> Packed:
        ids = None if self._words is None else self._words(piece)
        if ids is None:
            ids = self.encode_slowly(piece)
        if len(piece) <= _MAX_CACHED_PIECE_CHARS:
            self._keep(piece, ids)
        return ids

    def _keep(self, piece: str, ids: Packed) -> None:
        """Of what was seen before; what never comes again would only fill memory."""
        sign = hash(piece)
        if sign not in self._seen:
            self._seen.add(sign)
            return
        self._num_cached_chars += len(piece)
        if self._num_cached_chars > _MAX_CACHED_CHARS or len(self._seen) > _MAX_SEEN:
            self._forget()
        self._pieces[piece] = ids

    def _forget(self) -> None:
        """Begin anew: what repeats comes back."""
        self._pieces: dict[str, Packed] = {content: pack([id]) for content, id in self._added_ids.items()}
        self._seen: set[int] = set()
        self._num_cached_chars = 0


def pack(ids: Sequence[int]) -> Packed:
    return array("i", ids).tobytes()


def unpack(ids: Packed) -> "array[int]":
    numbers = array("i")
    numbers.frombytes(ids)
    return numbers


def _splitter(added: list[dict[str, Any]]) -> "re.Pattern[str] | None":
    """Cuts text at added tokens, the longest first; None where they do more than match their own text."""
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added):
        return None
    if len({token["normalized"] for token in added}) > 1:  # two passes in the tokenizer, one here
        return None
    return _any_of([token["content"] for token in added])


def _any_of(contents: list[str]) -> "re.Pattern[str]":
    longest_first = sorted(contents, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")" if contents else "(?!)")


def _word_encoder(tokenizer: Tokenizer, config: dict[str, Any]) -> "Callable[[str], Packed | None] | None":
    pattern = _word_pattern(config["pre_tokenizer"])
    normalizer = (config["normalizer"] or {}).get("type")
    model = config["model"]
    if pattern is None or normalizer not in (None, "NFC") or model["type"] != "BPE" or model.get("dropout"):
        return None
    try:
        return _WordEncoder(tokenizer, pattern, is_nfc=normalizer == "NFC")
    except (re.error, regex.error):
        return None


def _word_pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """One expression whose matches are the words; None for a pre-tokeniser of another kind."""
    match _steps(pre_tokenizer):
        case [{"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}]:
            return _GPT2
        case [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False},
        ]:
            return _GPT2_LONE_DIGITS
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
        ]:
            return pattern
    return None


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] == "Sequence":
        steps: list[dict[str, Any]] = pre_tokenizer["pretokenizers"]
        return steps
    return [pre_tokenizer]


class _WordIds(dict[str, Packed]):
    """Word -> token ids; a new word is asked of the BPE model."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self._tokenize = tokenizer.model.tokenize

    def __missing__(self, word: str) -> Packed:
        ids = pack([token.id for token in self._tokenize(_byte_level(word))])
        if len(word) <= _MAX_WORD_CHARS:
            if len(self) >= _MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids


class _NotAlone(Exception):
    """A space beside another one: what stands between spaces may not be read alone."""


class _ChunkIds(dict[str, Packed]):
    """What stands between two spaces -> token ids of it with the space before it."""

    def __init__(self, encode: Callable[[str], Packed]):
        super().__init__()
        self._encode = encode

    def __missing__(self, chunk: str) -> Packed:
        if not chunk or chunk[0].isspace() or chunk[-1].isspace():
            raise _NotAlone
        ids = self._encode(" " + chunk)
        if len(chunk) <= _MAX_WORD_CHARS:
            if len(self) >= _MAX_WORDS:
                self.clear()
            self[chunk] = ids
        return ids


class _WordEncoder:
    """Token ids of text without added tokens, cut into words; None for text with an unproven character."""

    def __init__(self, tokenizer: Tokenizer, pattern: str, *, is_nfc: bool):
        ascii_pattern = re.compile(_in_ascii(pattern), re.ASCII)
        if ascii_pattern.groups:
            raise re.error("a group would be found instead of the word")
        self._pre_tokenize = tokenizer.pre_tokenizer.pre_tokenize_str
        self._find_ascii = ascii_pattern.findall
        self._find = regex.compile(pattern).findall
        self._is_nfc = is_nfc
        self._ids = _WordIds(tokenizer)
        self._chunks = _ChunkIds(self._encode_words) if pattern in _CUTS_BEFORE_A_SPACE else None
        self._proven: set[str] = {chr(code) for code in range(128)}
        self._refused: set[str] = set()

    def __call__(self, text: str) -> Packed | None:
        if not text.isascii() and not self._is_proven(text):
            return None
        if self._chunks is not None and "  " not in text:
            try:
                return self._encode_chunks(text, self._chunks)
            except _NotAlone:
                pass
        return self._encode_words(text)

    def _encode_chunks(self, text: str, chunks: _ChunkIds) -> Packed:
        """Cut at spaces first: most of what stands between two is known, and need not be cut into words again."""
        first, space, others = text.partition(" ")
        if not space or not first or first[-1].isspace():
            raise _NotAlone
        return self._encode_words(first) + b"".join(map(chunks.__getitem__, others.split(" ")))

    def _encode_words(self, text: str) -> Packed:
        words = self._find_ascii(text) if text.isascii() else self._find(text)
        return b"".join(map(self._ids.__getitem__, words))

    def _is_proven(self, text: str) -> bool:
        if self._is_nfc and not unicodedata.is_normalized("NFC", text):
            return False
        characters = set(text)
        for character in characters - self._proven - self._refused:
            kind = self._proven if self._is_cut_alike(character) else self._refused
            kind.add(character)
        return self._refused.isdisjoint(characters)

    def _is_cut_alike(self, character: str) -> bool:
        """Whether both engines put the character into the same class: their Unicode versions differ."""
        if unicodedata.category(character) in ("Cn", "Cs"):  # not yet a character, or half of one
            return False
        c = character
        text = f"a{c}a A{c}A 1{c}1 {c}  {c}.{c}.\n{c}\n{c} '{c} '{c}e '{c}E 'l{c} 'L{c} 'v{c} 'r{c}\t{c}{c}"
        theirs = [word for word, _ in self._pre_tokenize(text)]
        return theirs == [_byte_level(word) for word in self._find(text)]


def _in_ascii(pattern: str) -> str:
    """The expression for ASCII text, in the faster engine: letter and number classes spelled out."""
    out: list[str] = []
    is_in_class = False
    for part in re.findall(r"\\p\{\w+\}|\\.|.", pattern, re.DOTALL):
        if part.startswith(r"\p{"):
            ranges = _ASCII_CLASSES.get(part[3:-1])
            if ranges is None or not (ranges or is_in_class):
                raise re.error(f"{part} has no ASCII range here")
            out.append(ranges if is_in_class else f"[{ranges}]")
            continue
        is_in_class = (is_in_class or part == "[") and part != "]"
        out.append(part)
    return "".join(out)


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


_BYTE_LETTERS = _byte_letters()


def _byte_level(word: str) -> str:
    if word.isascii() and word.isprintable():
        return word.replace(" ", _BYTE_LETTERS[32])
    return "".join(map(_BYTE_LETTERS.__getitem__, word.encode()))


def _split_probes(added: Iterable[str]) -> list[str]:
    """Whether text between added tokens may be read alone (not where a tokenizer adds a space before the first)."""
    return [a + token + b for token in list(added)[:3] for a in _PROBES for b in _PROBES]


def _nasty_texts(added: Iterable[str]) -> list[str]:
    """The same texts every time: single characters in company, long runs, and mixtures with added tokens."""
    rng = random.Random(0)  # noqa: S311 (no secret)
    alphabet = [*_NASTY_CHARACTERS, *list(added)[:8], "'ll", "'Re", "  ", "\r\n", "\n\n"]
    mixed = ["".join(rng.choices(alphabet, k=rng.randint(1, 40))) for _ in range(_NUM_NASTY_TEXTS)]
    runs = [text * 300 for text in ("a", " ", "\n", "1", "'", "é", "中", "🙂", "ab ", " \n", "'s", "!?")]
    return [*_PROBES, *mixed, *runs, *(f"x{c} {c}1{c}" for c in _NASTY_CHARACTERS)]

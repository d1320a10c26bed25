"""Small tokenizers of the kinds that models have, trained on the spot."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
TEXT = [
    "the quick brown fox isn't here, it's 2024-01-31 and we'll see 12345 things\n\n  indented   text\t!?",
    "Größe größer straße, naïve café, 日本語のテキスト 中文 русский текст 한국어 🙂🙂 e\u0301",
    "def f(x):\n    return x['key'] + 1\n",
] * 5
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def gpt2() -> Tokenizer:
    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def smollm() -> Tokenizer:
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _byte_level(pre_tokenizers.Sequence([digits, byte_level]))


def llama3() -> Tokenizer:
    return _byte_level(_split(LLAMA_3))


def qwen2() -> Tokenizer:
    """With NFC and added tokens that are not special, as Qwen's for tools."""
    tokenizer = _byte_level(_split(QWEN_2), normalizers.NFC())
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<tool_call>", "</tool_call>")])
    return tokenizer


def gaps() -> Tokenizer:
    """An expression that does not match every character: its gaps are words too."""
    return _byte_level(_split(r"\p{L}+|\p{N}"))


def stripping() -> Tokenizer:
    """Its special tokens take the spaces around them."""
    tokenizer = _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)])
    return tokenizer


def metaspace() -> Tokenizer:
    """As Llama 2 and Gemma: words are not cut from bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *SPECIAL, *bytes_], show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def prefix_space() -> Tokenizer:
    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))


FAST = {"gpt2": gpt2, "smollm": smollm, "llama3": llama3, "qwen2": qwen2}
SLOW = {"gaps": gaps, "stripping": stripping, "metaspace": metaspace, "prefix_space": prefix_space}


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _byte_level(
    pre_tokenizer: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer

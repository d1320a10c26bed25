"""Random identifiers in the shapes that OpenAI's clients know."""

import hashlib
import secrets
import string
from typing import Literal

ALPHABET = string.ascii_letters + string.digits

Prefix = Literal["file-", "ftjob-", "ftckpt_", "chatcmpl-", "req_", "key_", "sk-", "gen-"]


def new_id(prefix: Prefix, length: int = 24) -> str:
    """A fresh identifier, for instance ``ftjob-`` and 24 letters and digits (143 bits)."""
    return prefix + random_name(length)


def random_name(length: int) -> str:
    """``length`` random letters and digits; eight of them end a tuned model's name."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def stable_id(prefix: str, *parts: object, length: int = 24) -> str:
    """The same parts always give the same identifier: inserting an event twice is then impossible."""
    digest = hashlib.sha256("\x00".join(str(part) for part in parts).encode()).digest()
    number = int.from_bytes(digest, "big")
    letters = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[digit])
    return prefix + "".join(letters)

"""Keys and passwords in a text, by the forms that their makers give them.

A word such as ``password`` is only believed before a value that looks drawn at random: long, letters and digits.

Time is linear in the text's length whatever it holds: a key ends where its characters end, and is not tried again from
its middle.
"""

import itertools
import re
from collections.abc import Iterator

_FORMS: tuple[tuple[str, str], ...] = (  # (a text that must stand there, the form)
    ("AKIA", r"\bAKIA[A-Z0-9]{16}\b"),  # AWS access key
    ("ASIA", r"\bASIA[A-Z0-9]{16}\b"),
    ("sk-", r"\bsk-(?:proj-|ant-|svcacct-|or-)?[A-Za-z0-9_-]{20,}+"),  # OpenAI, Anthropic
    ("k_", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}+"),  # Stripe
    ("gh", r"\bgh[pousr]_[A-Za-z0-9]{36,}+\b"),  # GitHub
    ("github_pat_", r"\bgithub_pat_\w{40,}+"),
    ("glpat-", r"\bglpat-[\w-]{20,}+"),  # GitLab
    ("xox", r"\bxox[abprs]-[A-Za-z0-9-]{10,}+"),  # Slack
    ("AIza", r"\bAIza[\w-]{35}(?![\w-])"),  # Google
    ("hf_", r"\bhf_[A-Za-z0-9]{30,}+\b"),  # Hugging Face
    ("eyJ", r"(?<![\w-])eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]{8,}+"),  # JSON Web Token
    ("://", r"(?<=://)[^\s/:@\"]{1,64}:[^\s/@\"]{3,128}(?=@[\w.-])"),  # user:password in an address
    (
        "PRIVATE KEY",
        # What lies between has no five dashes: the end is not looked for beyond the next key's beginning.
        r"-----BEGIN (?:[A-Z]{2,12} )?PRIVATE KEY-----"
        r"(?:(?:[^-]|-(?!----)){0,20000}+-----END (?:[A-Z]{2,12} )?PRIVATE KEY-----)?",
    ),
)
_PATTERNS = tuple((needle, re.compile(pattern)) for needle, pattern in _FORMS)
_NAMED = re.compile(
    r"(?:api[_-]?key|secret[_-]?(?:access[_-]?)?key|access[_-]?token|auth[_-]?token|client[_-]?secret|password|passwd)"
    r"[\"']?\s{0,32}+[:=]\s{0,32}+[\"']?(?P<value>[A-Za-z0-9/+_.~-]{16,128}={0,2})",
    re.IGNORECASE,
)
_NAMES = ("key", "KEY", "Key", "oken", "OKEN", "ecret", "ECRET", "assw", "ASSW")


def find_secrets(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each, in no order; two may overlap."""
    for needle, pattern in _PATTERNS:
        if needle in text:
            yield from (match.span() for match in pattern.finditer(text))
    if ("=" in text or ":" in text) and any(name in text for name in _NAMES):
        for match in _NAMED.finditer(text):
            if _looks_random(match.group("value")):
                yield match.span("value")


def _looks_random(value: str) -> bool:
    """Letters and digits in turn, not one word, date or address of a variable."""
    kinds = [character.isdigit() for character in value if character.isalnum()]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    return changes >= 3 and len(set(value)) >= 10

"""What a generation is asked to do: ``request.json``. A key is never part of it."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from tunesmith.core.errors import Conflict, InvalidRequest, NotFound

REQUEST_FILE = "request.json"

TONES = ("plain", "friendly", "formal", "terse", "unsure", "impatient", "curious")
Length = Literal["short", "medium", "long"]
LENGTHS: tuple[Length, ...] = ("short", "medium", "long")
MAX_ROWS = 100_000
MAX_AMOUNT = 1_000_000
_MILLION = Decimal(1_000_000)


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """Where spending ends. None: no cap."""

    max_tokens: int | None = None
    """Prompt and completion tokens of all calls together."""
    max_cost: Decimal | None = None
    """In the currency of the prices."""


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """The teacher's prices per million tokens; 0 is free."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    currency: str | None = None
    """Known where the prices are this server's own."""

    @property
    def are_given(self) -> bool:
        return self.input > 0 or self.output > 0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Exact: a price has few digits, and a division by a million only moves the point."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / _MILLION


def plain(amount: Decimal) -> str:
    """An amount as documents and people get it: without an exponent and without zeros that say nothing."""
    return format(amount.normalize(), "f") if amount else "0"


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides a generation but its sources. Checked by ``require_sound``."""

    id: str
    created_at: int
    rows: int
    """Good rows wanted; candidates that are dropped do not count."""
    max_candidates: int
    """Candidates made at most, however many are dropped."""
    seed: int
    teacher_model: str
    teacher_url: str | None
    """Ends in ``/v1``, as a rule; None is the server that runs the generation."""
    key_variable: str | None = None
    """Name of the environment variable that holds the teacher's key: the command line's."""
    system: str | None = None
    """System prompt of every row. None: the one that most seeds have; empty: none."""
    topics: tuple[str, ...] = ()
    tones: tuple[str, ...] = TONES
    lengths: tuple[Length, ...] = LENGTHS
    max_answer_tokens: int = 512
    concurrency: int = 4
    caps: Caps = Caps()
    prices: Prices = Prices()
    seed_files: tuple[str, ...] = ()
    """Names or ids, for the report and the lineage."""
    documents: tuple[str, ...] = ()
    expires_at: int | None = None
    """When the first of the files it starts from expires, Unix seconds: what was made from them goes with it."""
    out: str | None = None
    """Where the command line writes the rows."""


def default_max_candidates(rows: int) -> int:
    """Twice the rows, and a few: a teacher whose every second answer is dropped still fills the set."""
    return 2 * rows + 8


def require_sound(request: GenerateRequest) -> None:
    """Raises InvalidRequest, naming the field, for what no run could make sense of."""
    _require_between(request.rows, 1, MAX_ROWS, "rows")
    _require_between(request.max_candidates, request.rows, 10 * MAX_ROWS, "max_candidates")
    _require_between(request.max_answer_tokens, 1, 32_768, "max_answer_tokens")
    _require_between(request.concurrency, 1, 64, "concurrency")
    for name in ("tones", "lengths"):
        if not getattr(request, name):
            raise InvalidRequest(
                f"{name} is empty.", param=name, code="invalid_value", mend="Name one, or leave it out."
            )
    if not request.teacher_model.strip():
        raise InvalidRequest("The teacher has no model.", param="teacher.model", code="invalid_value")
    for price in (request.prices.input, request.prices.output):
        _require_amount(price, "prices")
    if request.teacher_url is not None:
        require_address(request.teacher_url)
    _require_caps(request)


def _require_caps(request: GenerateRequest) -> None:
    caps, prices = request.caps, request.prices
    if caps.max_tokens is not None and caps.max_tokens < 1:
        raise InvalidRequest("max_tokens must be at least 1.", param="max_tokens", code="invalid_value")
    if caps.max_cost is None:
        return
    _require_amount(caps.max_cost, "max_cost")
    if caps.max_cost == 0:
        raise InvalidRequest("max_cost must be more than 0.", param="max_cost", code="invalid_value")
    if not prices.are_given:
        raise InvalidRequest(
            "A cap on money needs the teacher's prices.",
            param="max_cost",
            code="invalid_parameter_combination",
            mend="Give the prices per million input and output tokens.",
        )


def require_address(url: str) -> None:
    """Raises InvalidRequest unless ``url`` is an http(s) address with a host, and without anything secret in it."""
    parts = _parts_of(url)
    if parts is None:
        raise InvalidRequest(
            f"{url.rpartition('@')[2][:200]!r} is not an address.",
            param="teacher.base_url",
            code="invalid_value",
            mend="Give one like https://api.openai.com/v1.",
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidRequest(
            "The teacher's address holds a name, a password or a query, and addresses are written down.",
            param="teacher.base_url",
            code="invalid_value",
            mend="Give the bare address, and the key by itself.",
        )


def _parts_of(url: str) -> SplitResult | None:
    """None for what is no address to ``urlsplit`` or to httpx: the one checks it, the other calls it."""
    import httpx  # not at the top: the command line reads this module to show its help

    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
        has_host = bool(parts.hostname) and httpx.URL(url).host != "" and not re.search(r"\s", url)
    except (ValueError, httpx.InvalidURL):
        return None
    return parts if parts.scheme in ("http", "https") and has_host and has_port else None


def require_key_text(key: str) -> None:
    """Raises InvalidRequest for what no HTTP header can hold; the key itself is not shown."""
    if not key.isascii() or not key.isprintable():
        raise InvalidRequest(
            "The teacher's key holds letters that no key has.",
            param="teacher.api_key",
            code="invalid_value",
            mend="Copy it again, without line ends or quotation marks.",
        )


def _require_amount(amount: Decimal, name: str) -> None:
    if not amount.is_finite() or not 0 <= amount <= MAX_AMOUNT:
        raise InvalidRequest(
            f"{amount} is no amount of money; it must be from 0 to {MAX_AMOUNT:,}.", param=name, code="invalid_value"
        )


def _require_between(value: int, least: int, most: int, name: str) -> None:
    if not least <= value <= most:
        raise InvalidRequest(
            f"{name} is {value:,}; it must be from {least:,} to {most:,}.", param=name, code="invalid_value"
        )


def read_request(folder: Path) -> GenerateRequest:
    """Of a generation's folder. Raises Conflict (``generation_damaged``), NotFound for one that was just deleted."""
    try:
        return msgspec.json.decode((folder / REQUEST_FILE).read_bytes(), type=GenerateRequest)
    except FileNotFoundError:
        raise NotFound(f"There is no generation {folder.name!r}.", code="generation_not_found", param="id") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Conflict(
            f"{REQUEST_FILE} of {folder.name} cannot be understood.",
            code="generation_damaged",
            mend="Restore the file from a backup, or delete the generation.",
        ) from None

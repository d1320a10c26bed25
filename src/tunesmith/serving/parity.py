"""The parity certificate: what the engine computes is what was trained.

Each row of a checkpoint's parity.json holds a prompt as token ids and the trainer's five likeliest next tokens with
their log-probabilities (natural logarithm). The running engine is asked for its own distribution after the same ids.
A difference is |trainer - engine| for one of those tokens. The certificate lies beside the merged file, so it is made
once.
"""

import math
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tunesmith.core.errors import Unavailable
from tunesmith.core.types import PARITY_FILE
from tunesmith.serving.export import SERVE_DIR, ServedFiles

CERTIFICATE_FILE = "parity_certificate.json"

NUM_ALTERNATIVES = 64
"""Asked of the engine, so that the trainer's five are among them; one that is not counts as far apart."""


class TokenLogprob(msgspec.Struct, frozen=True):
    token_id: int
    logprob: float


class ParityRow(msgspec.Struct, frozen=True):
    prompt_token_ids: list[int]
    top: list[TokenLogprob]
    """The trainer's, likeliest first."""


class ParityRows(msgspec.Struct, frozen=True):
    rows: list[ParityRow]


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """``key`` is that of the served files it was made for. Differences are in nats."""

    key: str
    passed: bool
    num_rows: int
    num_tokens_compared: int
    mean_difference: float
    max_difference: float
    bound_mean: float
    bound_max: float
    num_same_first_token: int
    """Rows in which trainer and engine agree on the likeliest token."""


LEAST_PROBABILITY = 0.01
"""Tokens that the trainer holds less likely are not compared: rounding moves them far, and they are hardly sampled."""

MAX_MEAN_DIFFERENCE = 0.4
MAX_DIFFERENCE = 2.0
"""Bounds in nats. Measured with SmolLM2-135M, a rank-16 adapter on all linear layers, merged to Q8_0 on a Q4_1 base:
mean 0.08, largest 0.37 of 180 tokens; with a random adapter that swamps the base, which amplifies rounding, 0.20 and
0.60. Wrong weights (the base in the tuned model's place): mean 4, largest 10. The bounds stand between, at twice the
harshest rounding seen, because a false refusal costs a user the model. docs/lab/LOG.md has the numbers.
"""


async def certify(base_url: str, headers: dict[str, str], checkpoint_dir: Path, files: ServedFiles) -> Certificate:
    """The certificate of a running engine, measured unless one for the same files is there.

    Raises Unavailable (``parity_failed``) when it does not pass, or when the trainer left no rows to compare.
    """
    path = checkpoint_dir / SERVE_DIR / CERTIFICATE_FILE
    certificate = _read(path)
    if certificate is None or certificate.key != files.key:
        certificate = await _measure(base_url, headers, checkpoint_dir, files.key)
        _write(path, certificate)
    if not certificate.passed:
        raise _failed(certificate)
    return certificate


async def differences(base_url: str, headers: dict[str, str], row: ParityRow) -> tuple[list[float], bool]:
    """|trainer - engine| in nats for each of the row's likely tokens; whether both have the same likeliest token."""
    engine = await _engine_logprobs(base_url, headers, row.prompt_token_ids)
    floor = min(engine.values())
    likely = [token for token in row.top if token.logprob >= math.log(LEAST_PROBABILITY)]
    apart = [abs(token.logprob - engine.get(token.token_id, floor)) for token in likely]
    return apart, max(engine, key=lambda token_id: engine[token_id]) == row.top[0].token_id


async def _engine_logprobs(base_url: str, headers: dict[str, str], prompt_token_ids: list[int]) -> dict[int, float]:
    """Token id to log-probability, of the whole distribution before any sampling filter."""
    question = {"prompt": prompt_token_ids, "n_predict": 1, "n_probs": NUM_ALTERNATIVES, "temperature": 0}
    async with httpx.AsyncClient(timeout=httpx.Timeout(None, connect=5), headers=headers) as client:
        response = await client.post(f"{base_url}/completion", json=question)
    if response.status_code != HTTPStatus.OK:
        raise Unavailable(
            f"The engine refused a prompt of the parity certificate: {response.text[:200]}",
            code="parity_failed",
            param="model",
        )
    (step,) = response.json()["completion_probabilities"]
    return {int(entry["id"]): float(entry["logprob"]) for entry in step["top_logprobs"]}


async def _measure(base_url: str, headers: dict[str, str], checkpoint_dir: Path, key: str) -> Certificate:
    rows = _parity_rows(checkpoint_dir)
    measured = [await differences(base_url, headers, row) for row in rows]
    apart = [difference for row_apart, _ in measured for difference in row_apart]
    mean, largest = sum(apart) / len(apart), max(apart)
    return Certificate(
        key=key,
        passed=mean <= MAX_MEAN_DIFFERENCE and largest <= MAX_DIFFERENCE,
        num_rows=len(rows),
        num_tokens_compared=len(apart),
        mean_difference=mean,
        max_difference=largest,
        bound_mean=MAX_MEAN_DIFFERENCE,
        bound_max=MAX_DIFFERENCE,
        num_same_first_token=sum(is_same for _, is_same in measured),
    )


def _parity_rows(checkpoint_dir: Path) -> list[ParityRow]:
    path = checkpoint_dir / PARITY_FILE
    rows = msgspec.json.decode(path.read_bytes(), type=ParityRows).rows if path.exists() else []
    if not rows:
        raise Unavailable(
            f"The checkpoint {checkpoint_dir.name} has no {PARITY_FILE} to compare the engine with.",
            code="parity_failed",
            param="model",
        )
    return rows


def _failed(certificate: Certificate) -> Unavailable:
    return Unavailable(
        f"The engine's log-probabilities differ from the trainer's by {certificate.mean_difference:.3f} on average and "
        f"{certificate.max_difference:.3f} at most; {certificate.bound_mean} and {certificate.bound_max} are allowed.",
        code="parity_failed",
        param="model",
        mend=f"The numbers are in {SERVE_DIR}/{CERTIFICATE_FILE} in the checkpoint's folder.",
    )


def _read(path: Path) -> Certificate | None:
    return msgspec.json.decode(path.read_bytes(), type=Certificate) if path.exists() else None


def _write(path: Path, certificate: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(certificate), indent=1) + b"\n")
    temporary.replace(path)

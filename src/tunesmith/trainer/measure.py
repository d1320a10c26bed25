"""What this machine computes fastest in, and how much memory a run took."""

import resource
import sys
import time
from typing import NamedTuple

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
_MIN_GAIN = 1.5
"""bfloat16 must be this much faster in the probe: it gives away precision, so a draw is float32's."""
_PROBE_TOKENS, _PROBE_REPEATS = 512, 5


class DtypeChoice(NamedTuple):
    dtype: torch.dtype
    name: str
    reason: str


def choose_dtype(wanted: str, hidden_size: int, inner_size: int) -> DtypeChoice:
    """The numeric type of a run: the wanted one, or after ``auto`` the one that this model's matrix products like best.

    bfloat16 is half as fast as float32 on processors without matrix tiles and several times as fast with them, so it
    is measured. The probe takes about a tenth of a second.
    """
    if wanted != "auto":
        return DtypeChoice(DTYPES[wanted], wanted, "asked for")
    rates = {name: gemm_rate(DTYPES[name], hidden_size, inner_size) / 1e9 for name in ("float32", "bfloat16")}
    name = "bfloat16" if rates["bfloat16"] >= _MIN_GAIN * rates["float32"] else "float32"
    reason = f"matrix products run at {rates['float32']:.0f} GFLOP/s in float32 and {rates['bfloat16']:.0f} in bfloat16"
    return DtypeChoice(DTYPES[name], name, reason)


def gemm_rate(dtype: torch.dtype, hidden_size: int, inner_size: int, num_tokens: int = _PROBE_TOKENS) -> float:
    """Floating-point operations per second of [tokens, hidden] x [hidden, inner], the best of a few."""
    x, w = torch.ones(num_tokens, hidden_size, dtype=dtype), torch.ones(inner_size, hidden_size, dtype=dtype)
    best = min(_timed(x, w) for _ in range(_PROBE_REPEATS + 1))
    return 2.0 * num_tokens * hidden_size * inner_size / best


def _timed(x: torch.Tensor, w: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.nn.functional.linear(x, w)
    return time.perf_counter() - start


def peak_memory_bytes() -> int:
    """The most resident memory this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

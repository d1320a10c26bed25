"""Read a safetensors file into numpy float32 arrays. The library's own numpy reader does not know bfloat16."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import Unavailable

Float = NDArray[np.float32]
HEADER_LENGTH_BYTES = 8


def read_tensors(path: Path) -> dict[str, Float]:
    """All tensors by name. float32 ones are views of the mapped file, others are converted.

    Format: https://huggingface.co/docs/safetensors. Raises Unavailable for another type than float32, float16,
    bfloat16.
    """
    content = np.memmap(path, dtype=np.uint8, mode="r")
    start = HEADER_LENGTH_BYTES + int.from_bytes(content[:HEADER_LENGTH_BYTES].tobytes(), "little")
    header: dict[str, Any] = msgspec.json.decode(content[HEADER_LENGTH_BYTES:start].tobytes())
    header.pop("__metadata__", None)
    return {name: _tensor(content[start:], name, facts) for name, facts in header.items()}


def _tensor(body: NDArray[np.uint8], name: str, facts: dict[str, Any]) -> Float:
    begin, end = facts["data_offsets"]
    raw, shape = body[begin:end], facts["shape"]
    match facts["dtype"]:
        case "F32":
            return raw.view(np.float32).reshape(shape)
        case "F16":
            return raw.view(np.float16).astype(np.float32).reshape(shape)
        case "BF16":
            return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
        case kind:
            raise Unavailable(f"{name} is stored as {kind}, which cannot be served.", code="export_failed")

"""From a model's files to a running, certified engine."""

import asyncio
import sys
from pathlib import Path

import msgspec

from tunesmith.core.errors import Unavailable
from tunesmith.core.settings import Settings
from tunesmith.serving.engines.llama_cpp import EngineOptions, LlamaCppProcess, num_threads_or_all, start_llama_cpp
from tunesmith.serving.export import ServedFiles, served_files
from tunesmith.serving.parity import certify
from tunesmith.serving.registry import GGUF_FILE, ServedModel

DEFAULT_CONTEXT_TOKENS = 4096
OVERHEAD_BYTES = 150 * 2**20
"""Compute buffers and the child's Python, measured with SmolLM2-135M."""

CHAT_TEMPLATE_FILE = "chat_template.jinja"


async def load_engine(settings: Settings, model: ServedModel) -> LlamaCppProcess:
    """Export if need be, start a child, and compare it with the trainer before anyone may use it.

    Raises Unavailable: ``export_failed``, ``engine_start_failed`` or ``parity_failed``. Leaves no process behind then.
    """
    files = await _files(model)
    process = await start_llama_cpp(_options(settings, model, files))
    if model.checkpoint_dir is None:
        return process
    try:
        await certify(process.base_url, process.headers, model.checkpoint_dir, files)
    except BaseException:
        await process.stop()
        raise
    return process


def context_tokens(settings: Settings, model: ServedModel) -> int:
    """The longest chat, prompt and answer together, that an engine of this model is started for."""
    limit = int(msgspec.json.decode((model.base_dir / "config.json").read_bytes())["max_position_embeddings"])
    return min(limit, settings.engine_context_tokens or DEFAULT_CONTEXT_TOKENS)


def expected_bytes(settings: Settings, model: ServedModel) -> int:
    """About how much memory an engine of this model takes: weights, keys and values of every chat, overhead.

    Weights are counted as 8.5 bits a parameter (Q8_0), or as the base's file where that is larger.
    """
    config = msgspec.json.decode((model.base_dir / "config.json").read_bytes())
    num_kv_heads = int(config.get("num_key_value_heads", config["num_attention_heads"]))
    head_dim = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    bytes_per_token = 2 * 2 * int(config["num_hidden_layers"]) * num_kv_heads * head_dim
    kv_bytes = bytes_per_token * context_tokens(settings, model) * settings.engine_parallel
    weight_bytes = (model.base_dir / GGUF_FILE).stat().st_size
    return 2 * weight_bytes + kv_bytes + OVERHEAD_BYTES

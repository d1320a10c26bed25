"""From a model's files to a running, certified engine."""

import asyncio
import sys

import msgspec

from tunesmith.catalog.fetch import GGUF_FILE
from tunesmith.core.errors import Unavailable
from tunesmith.core.settings import Settings
from tunesmith.serving.engines.child import num_threads_or_all
from tunesmith.serving.engines.llama_cpp import EngineOptions, LlamaCppProcess, start_llama_cpp
from tunesmith.serving.export import ServedFiles, served_files
from tunesmith.serving.parity import certify
from tunesmith.serving.registry import ServedModel

DEFAULT_CONTEXT_TOKENS = 4096
OVERHEAD_BYTES = 150 * 2**20
"""Compute buffers and the child's Python, measured with SmolLM2-135M."""

EXPORTER = "tunesmith.serving.export"


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

    Weights are counted as twice the base's file, since a merged model is written with 8 bits where the base may have 4.
    """
    config = msgspec.json.decode((model.base_dir / "config.json").read_bytes())
    num_kv_heads = int(config.get("num_key_value_heads", config["num_attention_heads"]))
    head_dim = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    bytes_per_token = 2 * 2 * int(config["num_hidden_layers"]) * num_kv_heads * head_dim
    kv_bytes = bytes_per_token * context_tokens(settings, model) * settings.engine_parallel
    weight_bytes = (model.base_dir / GGUF_FILE).stat().st_size
    return 2 * weight_bytes + kv_bytes + OVERHEAD_BYTES


async def _files(model: ServedModel) -> ServedFiles:
    files = await asyncio.to_thread(served_files, model.base_dir, model.checkpoint_dir)
    if not files.is_there:
        await _export(model)
    return files


async def _export(model: ServedModel) -> None:
    """Merge in a child process; a cancelled caller ends it, and nothing half-made is left."""
    command = [sys.executable, "-m", EXPORTER, str(model.base_dir), str(model.checkpoint_dir)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        _, messages = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        raise
    if process.returncode != 0:
        lines = messages.decode(errors="replace").splitlines() or ["no message"]
        raise Unavailable(f"`{model.name}` could not be made ready: {lines[-1]}", code="export_failed", param="model")


def _options(settings: Settings, model: ServedModel, files: ServedFiles) -> EngineOptions:
    return EngineOptions(
        gguf_path=files.gguf_path,
        chat_template=files.chat_template,
        context_tokens=context_tokens(settings, model),
        num_parallel=settings.engine_parallel,
        num_threads=num_threads_or_all(settings.engine_threads),
        log_path=settings.home / "logs" / f"engine-{model.fingerprint}.log",
        start_timeout_s=settings.engine_start_timeout_s,
    )

"""The parent's side of a llama.cpp engine: start the child process, know whether it lives, stop it.

What the engine's HTTP interface understands, and where it differs from OpenAI's, is in
docs/reference/engine-llama-cpp.md.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from tunesmith.core.errors import Unavailable
from tunesmith.serving.engines.child import ENVIRON
from tunesmith.serving.engines.llama_cpp_worker import WorkerConfig, WorkerFailed, WorkerReady

WORKER = "tunesmith.serving.engines.llama_cpp_worker"
STOP_GRACE_S = 5.0


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is started. ``log_path`` gets llama.cpp's warnings; the child's earlier ones are overwritten."""

    gguf_path: Path
    chat_template: str
    context_tokens: int
    num_parallel: int
    num_threads: int
    log_path: Path
    start_timeout_s: float


class LlamaCppProcess:
    """A running child. It dies with this process: the kernel kills it, and its stdin closes."""

    def __init__(self, process: asyncio.subprocess.Process, base_url: str, api_key: str):
        self._process = process
        self.base_url = base_url
        self.headers = {"Authorization": f"Bearer {api_key}"}

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def resident_bytes(self) -> int:
        """Memory that the child holds; 0 once it is gone. A mapped weights file is counted in."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.is_alive else 0
        except psutil.NoSuchProcess:
            return 0

    async def wait(self, timeout_s: float) -> bool:
        """Whether the child has ended within the time."""
        try:
            await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End the child, chats in progress included."""
        _signal(self._process.terminate)
        if not await self.wait(STOP_GRACE_S):
            _signal(self._process.kill)
            await self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


async def start_llama_cpp(options: EngineOptions) -> LlamaCppProcess:
    """Start a child and wait until it answers.

    Raises Unavailable (``engine_start_failed``) when the model cannot be loaded or takes longer than the time
    allowed; no process is left behind then, nor when the caller is cancelled.
    """
    api_key = secrets.token_urlsafe(24)
    process = await _spawn(options.log_path)
    try:
        answer = await asyncio.wait_for(_configure(process, _config(options, api_key)), options.start_timeout_s)
        if isinstance(answer, WorkerReady):
            return LlamaCppProcess(process, answer.base_url, api_key)
        raise start_failed(answer.message, options.log_path)
    except TimeoutError:
        _signal(process.kill)
        raise start_failed(f"no answer within {options.start_timeout_s:g} s", options.log_path) from None
    except BaseException:
        _signal(process.kill)
        raise


def start_failed(reason: str, log_path: Path) -> Unavailable:
    last_line = _last_line(log_path)
    return Unavailable(
        f"The model could not be loaded: {reason}" + (f" ({last_line})." if last_line else "."),
        code="engine_start_failed",
        param="model",
        mend=f"The engine's own messages are in {log_path.name} in the folder of logs.",
    )


async def _spawn(log_path: Path) -> asyncio.subprocess.Process:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            WORKER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=os.environ | ENVIRON,
            start_new_session=True,  # Ctrl-C is for the server, which then stops its engines in order
        )


def _config(options: EngineOptions, api_key: str) -> WorkerConfig:
    return WorkerConfig(
        parent_pid=os.getpid(),
        model_path=str(options.gguf_path),
        chat_template=options.chat_template,
        context_tokens=options.context_tokens,
        num_parallel=options.num_parallel,
        num_threads=options.num_threads,
        api_key=api_key,
    )


async def _configure(process: asyncio.subprocess.Process, config: WorkerConfig) -> WorkerReady | WorkerFailed:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(config) + b"\n")
    line = await process.stdout.readline()
    if not line:
        return WorkerFailed(f"the engine's process ended with status {await process.wait()}")
    return msgspec.json.decode(line, type=WorkerReady | WorkerFailed)


def _signal(send: Callable[[], None]) -> None:
    with suppress(ProcessLookupError):  # it may have ended by itself meanwhile
        send()


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1].strip() if lines else ""

"""A bare llama.cpp server with the parameters of Tunesmith's engines, for comparison.

As a program it is the child: it reads a WorkerConfig from stdin, prints its address, and ends when stdin does. An
adapter's path may follow as an argument.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tunesmith.serving.engines.child import ENVIRON
from tunesmith.serving.engines.llama_cpp_worker import WorkerConfig, engine_params

API_KEY = "bench"
HEADERS = {"Authorization": f"Bearer {API_KEY}"}


@contextmanager
def bare_engine(
    model: Path, template: str, *, adapter: Path | None = None, context_tokens: int, num_parallel: int, num_threads: int
) -> Iterator[str]:
    """The address of a running server; it is ended when the block is left."""
    config = WorkerConfig(
        parent_pid=os.getpid(),
        model_path=str(model),
        chat_template=template,
        context_tokens=context_tokens,
        num_parallel=num_parallel,
        num_threads=num_threads,
        api_key=API_KEY,
    )
    command = [sys.executable, __file__, *([str(adapter)] if adapter else [])]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | ENVIRON
    )
    try:
        process.stdin.write(msgspec.json.encode(config) + b"\n")
        process.stdin.flush()
        yield process.stdout.readline().decode().strip()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        time.sleep(0.2)  # let the kernel take its memory back before the next one starts


def main() -> None:
    import xllamacpp

    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerConfig)
    params = engine_params(xllamacpp, config)
    if len(sys.argv) > 1:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(sys.argv[1], 1.0)]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()

"""The child process of a llama.cpp engine: ``python -m tunesmith.serving.engines.llama_cpp_worker``.

Reads one line of JSON (``WorkerConfig``) from stdin, loads the model, serves HTTP on a free loopback port, and prints
one line of JSON (``WorkerReady`` or ``WorkerFailed``) to stdout. It ends when stdin does: the parent holds the other
end, so the child cannot outlive it, whatever kills the parent. llama.cpp's own messages go to stderr, which the
parent sends to a file.
"""

import os
import sys
from typing import Any

import msgspec

from tunesmith.serving.engines.child import die_with

QUIET = 2
"""llama.cpp's verbosity that prints warnings and errors only."""


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs. ``context_tokens`` is for one chat; llama.cpp divides its context among chats."""

    parent_pid: int
    model_path: str
    chat_template: str
    """Jinja source, the same text that training rendered with."""
    context_tokens: int
    num_parallel: int
    num_threads: int
    api_key: str


class WorkerReady(msgspec.Struct, frozen=True, tag="ready", tag_field="state"):
    base_url: str


class WorkerFailed(msgspec.Struct, frozen=True, tag="failed", tag_field="state"):
    message: str


def main() -> None:
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp must not write between our lines
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerConfig)
    die_with(config.parent_pid)
    try:
        server = serve(config)
    except RuntimeError as error:
        print(msgspec.json.encode(WorkerFailed(str(error))).decode(), file=reply, flush=True)
        sys.exit(1)
    print(msgspec.json.encode(WorkerReady(server.listening_address)).decode(), file=reply, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # llama.cpp's own shutdown waits for running chats; nobody is left to read them


def serve(config: WorkerConfig) -> Any:
    """Load the model and start its HTTP server; returns when it answers. Raises RuntimeError if it cannot be loaded."""
    import xllamacpp

    return xllamacpp.Server(engine_params(xllamacpp, config))


def engine_params(xllamacpp: Any, config: WorkerConfig) -> Any:
    """The ``xllamacpp.CommonParams`` of every engine; the bare servers in bench/ run with the same."""
    params = xllamacpp.CommonParams()
    params.model.path = config.model_path
    params.chat_template = config.chat_template
    params.use_jinja = True
    params.n_ctx = config.context_tokens * config.num_parallel
    params.n_parallel = config.num_parallel
    params.cpuparams.n_threads = config.num_threads
    params.cpuparams_batch.n_threads = config.num_threads
    params.fit_params = False  # the router has made room; a silently smaller context would be a surprise
    _set_network(params, config)
    _set_openai_sampling(params.sampling)
    return params


def _set_network(params: Any, config: WorkerConfig) -> None:
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config.api_key]
    params.ui = False
    params.verbosity = QUIET


def _set_openai_sampling(sampling: Any) -> None:
    """What OpenAI's API means by a request without these fields: the model's own distribution, nothing cut off."""
    sampling.temp = 1.0
    sampling.top_p = 1.0
    sampling.top_k = 0
    sampling.min_p = 0.0
    sampling.penalty_last_n = -1  # presence and frequency penalties count the whole context


if __name__ == "__main__":
    main()

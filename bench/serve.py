"""What the gateway costs: chats through Tunesmith's API beside the same chats to the bare engine. ``make bench-serve``.

Both run the base model with the same engine parameters. Each repeat asks both, one after the other (who goes first
alternates), with 1 and 8 clients that stream answers of a fixed length to prompts never seen before. Medians of the
repeats: time to first token, tokens/s over all clients. The cost is the tokens/s that the API loses, in percent of the
bare engine's, from the median of the repeats' own ratios. JSON on stdout.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bare_engine import API_KEY, bare_engine
from tunesmith.catalog.fetch import GGUF_FILE, install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.core.settings import Settings
from tunesmith.serving.engines.child import num_threads_or_all

CACHE = Path(__file__).parents[1] / ".cache" / "tunesmith"
ENGINE = {"context_tokens": 1024, "num_parallel": 8}
NUM_CLIENTS = (1, 8)
END_OF_TURN = "2"
FRESH = itertools.count()


@dataclass(frozen=True)
class Server:
    base_url: str
    """Ends in /v1."""
    key: str


@contextmanager
def tunesmith_server() -> Iterator[Server]:
    """A server with a home of its own, as a user starts it."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models").symlink_to(CACHE / "models")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")} | {
            "TUNESMITH_HOME": home,
            "TUNESMITH_ENGINE_CONTEXT_TOKENS": str(ENGINE["context_tokens"]),
            "TUNESMITH_ENGINE_PARALLEL": str(ENGINE["num_parallel"]),
        }
        command = [sys.executable, "-m", "tunesmith.cli.main", "serve", "--port", "0"]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            yield _announced(process)
        finally:
            process.terminate()
            process.wait(timeout=60)
            process.stdout.close()


def _announced(process: subprocess.Popen) -> Server:
    found = {}
    for line in process.stdout:
        for start in ("Tunesmith listens on ", "First API key: "):
            if line.startswith(start):
                found[start] = line.removeprefix(start).split()[0]
        if len(found) == 2:
            return Server(*found.values())
    raise SystemExit("tunesmith serve ended before it listened")


async def one_chat(client: httpx.AsyncClient, num_tokens: int) -> float:
    """Streams one answer of exactly ``num_tokens``; returns the time to the first one, in seconds."""
    body = {
        "model": embedded_model().id,
        "messages": [{"role": "user", "content": f"{next(FRESH)} is a number. Write a long story about it."}],
        "max_tokens": num_tokens,
        "temperature": 0,
        "logit_bias": {END_OF_TURN: -100},
        "stream": True,
    }
    started, first, num_events = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            num_events += line.startswith("data: ")
            if not first and '"content":"' in line and '"content":""' not in line:
                first = time.perf_counter() - started
    assert num_events >= num_tokens / 2, "the answer ended early"
    return first


async def one_round(server: Server, num_clients: int, num_tokens: int) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {server.key}"}
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.base_url, headers=headers, timeout=None, limits=limits) as client:
        started = time.perf_counter()
        firsts = await asyncio.gather(*(one_chat(client, num_tokens) for _ in range(num_clients)))
        seconds = time.perf_counter() - started
    return {
        "time_to_first_token_s": statistics.median(firsts),
        "tokens_per_s": num_clients * num_tokens / seconds,
    }


def measure(servers: dict[str, Server], repeats: int, num_tokens: int) -> dict[str, object]:
    rounds: dict[tuple[str, int], list[dict[str, float]]] = {}
    for server in servers.values():
        asyncio.run(one_round(server, 8, 4))
    for repeat in range(repeats):
        order = list(servers) if repeat % 2 == 0 else list(reversed(servers))
        for num_clients in NUM_CLIENTS:
            for name in order:
                result = asyncio.run(one_round(servers[name], num_clients, num_tokens))
                rounds.setdefault((name, num_clients), []).append(result)
                print(
                    repeat, name, num_clients, {key: round(value, 4) for key, value in result.items()}, file=sys.stderr
                )
    return {f"{num_clients} clients": compared(rounds, num_clients) for num_clients in NUM_CLIENTS}


def compared(rounds: dict[tuple[str, int], list[dict[str, float]]], num_clients: int) -> dict[str, object]:
    bare, api = rounds["bare engine", num_clients], rounds["tunesmith", num_clients]
    shares = [1 - ours["tokens_per_s"] / theirs["tokens_per_s"] for ours, theirs in zip(api, bare, strict=True)]
    return {
        "bare engine": medians(bare),
        "tunesmith": medians(api),
        "cost_percent": round(100 * statistics.median(shares), 2),
        "cost_percent_of_each_repeat": [round(100 * share, 2) for share in shares],
    }


def medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(result[key] for result in results), 4) for key in results[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="length of an answer")
    arguments = parser.parse_args()
    base_dir = install_base_model(Settings(home=CACHE), embedded_model().id, lambda line: print(line, file=sys.stderr))
    template = (base_dir / "chat_template.jinja").read_text()
    with (
        tunesmith_server() as ours,
        bare_engine(base_dir / GGUF_FILE, template, **ENGINE, num_threads=num_threads_or_all(0)) as url,
    ):
        servers = {"bare engine": Server(url + "/v1", API_KEY), "tunesmith": ours}
        print(json.dumps(measure(servers, arguments.repeats, arguments.tokens), indent=1))


if __name__ == "__main__":
    main()

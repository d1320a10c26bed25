"""One llama.cpp child on the real base model: what the gateway relies on (docs/reference/engine-llama-cpp.md)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tunesmith.core.errors import Unavailable
from tunesmith.data.render import ChatTemplate
from tunesmith.serving.engines.llama_cpp import EngineOptions, LlamaCppProcess, start_llama_cpp
from tunesmith.serving.export import served_files
from tunesmith.serving.parity import certify

HI = [{"role": "user", "content": "Say only: hi"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"ort": "Köln"}'}}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    HI,
    [{"role": "system", "content": "Be brief."}, *HI],
    [{"role": "system", "content": ""}, *HI],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "Größe: 日本語 🙂 é\u0301 — “quoted”"}],
    [{"role": "user", "content": "  two  spaces\tand\n\nlines  "}],
    [{"role": "user", "content": "1234567 + 89.5% <b>&amp;</b> {{ braces }} {% tag %}"}],
    [*HI, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "again"}],
    [
        *HI,
        {"role": "assistant", "content": "hi\n"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "5"},
    ],
    [*HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "42"}],
    [
        *HI,
        {"role": "assistant", "content": "Wait.", "tool_calls": [CALL, CALL]},
        *({"role": "tool", "tool_call_id": "c1", "content": answer} for answer in ("1", "zwei ß")),
    ],
    [{"role": "developer", "content": "Be kind."}, *HI],
]


def options(base_dir: Path, folder: Path, **changes: Any) -> EngineOptions:
    chosen = {
        "gguf_path": base_dir / "model.gguf",
        "chat_template": (base_dir / "chat_template.jinja").read_text(),
        "context_tokens": 512,
        "num_parallel": 2,
        "num_threads": 1,
        "log_path": folder / "engine.log",
        "start_timeout_s": 120.0,
    }
    return EngineOptions(**(chosen | changes))


@pytest.fixture(scope="module")
def engine(run, base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppProcess]:
    process = run(start_llama_cpp(options(base_dir, tmp_path_factory.mktemp("engine"))))
    yield process
    run(process.stop())
    assert not psutil.pid_exists(process.pid)


def post(engine: LlamaCppProcess, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(engine.base_url + path, headers=engine.headers, json=body, timeout=120)


def chat(engine: LlamaCppProcess, **fields: Any) -> dict[str, Any]:
    response = post(engine, "/v1/chat/completions", {"messages": HI, "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_generation_ends_with_a_turn_that_is_not_shown(engine: LlamaCppProcess) -> None:
    answer = chat(engine, logprobs=True, top_logprobs=1, max_tokens=50)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"] == {"role": "assistant", "content": "Hi."}
    *shown, end = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in shown) == "Hi."
    assert (end["token"], end["bytes"], end["id"]) == ("", [], 2)
    assert answer["usage"]["completion_tokens"] == len(shown) + 1


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_a_prompt_has_the_token_ids_of_training(engine: LlamaCppProcess, base_dir: Path, number: int) -> None:
    from tokenizers import Tokenizer

    messages = CONVERSATIONS[number]
    text = ChatTemplate.from_dir(base_dir).render(messages, None, add_generation_prompt=True)
    trained = Tokenizer.from_file(str(base_dir / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    prompt = post(engine, "/apply-template", {"messages": messages}).json()["prompt"]
    assert prompt == text
    tokenised = post(engine, "/tokenize", {"content": prompt, "add_special": False, "parse_special": True}).json()
    assert tokenised["tokens"] == trained
    answer = post(engine, "/v1/chat/completions", {"messages": messages, "max_tokens": 1}).json()
    assert answer["usage"]["prompt_tokens"] == len(trained)


def test_defaults_of_sampling_are_the_models_own_distribution(engine: LlamaCppProcess) -> None:
    used = httpx.get(engine.base_url + "/slots", headers=engine.headers).json()[0]["params"]
    assert {key: used[key] for key in ("top_k", "min_p")} == {"top_k": 0, "min_p": 0.0}


def test_the_key_is_needed(engine: LlamaCppProcess) -> None:
    response = httpx.post(engine.base_url + "/v1/chat/completions", json={"messages": HI})
    assert response.status_code == 401


def test_choices_run_together_and_usage_counts_one(engine: LlamaCppProcess) -> None:
    answer = chat(engine, n=2, max_tokens=4, temperature=1, seed=5)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 4
    assert chat(engine, max_tokens=4, temperature=1, seed=5)["choices"][0] == answer["choices"][0]


def test_logprobs_need_a_number_of_alternatives(engine: LlamaCppProcess) -> None:
    assert "logprobs" not in chat(engine, logprobs=True, top_logprobs=0, max_tokens=1)["choices"][0]
    (entry,) = chat(engine, logprobs=True, max_tokens=1)["choices"][0]["logprobs"]["content"]
    assert len(entry["top_logprobs"]) == 20


def test_logprobs_are_those_before_temperature(engine: LlamaCppProcess) -> None:
    wanted = {"logprobs": True, "top_logprobs": 3, "max_tokens": 1, "seed": 1}
    cold, hot = (
        chat(engine, temperature=t, **wanted)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] for t in (0, 2)
    )
    assert [entry["logprob"] for entry in hot] == pytest.approx([entry["logprob"] for entry in cold], abs=1e-3)


def test_no_tokens_asked_gives_one(engine: LlamaCppProcess) -> None:
    assert chat(engine, max_tokens=0)["usage"]["completion_tokens"] == 1
    assert chat(engine, max_tokens=1, max_completion_tokens=2)["usage"]["completion_tokens"] == 2


def test_a_prompt_that_is_too_long_is_refused(engine: LlamaCppProcess) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 600}]}
    response = post(engine, "/v1/chat/completions", body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["n_ctx"]) == ("exceed_context_size_error", 512)
    assert error["n_prompt_tokens"] > 600


def test_a_stream_ends_with_usage_and_done(engine: LlamaCppProcess) -> None:
    body = {"messages": HI, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    text = post(engine, "/v1/chat/completions", body).text
    *events, done = [line.removeprefix("data: ") for line in text.splitlines() if line]
    chunks = [json.loads(event) for event in events]
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1]) == "Hi."
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 3


def test_a_closed_stream_frees_its_slot(engine: LlamaCppProcess) -> None:
    body = {"messages": [{"role": "user", "content": "Write a long story."}], "stream": True, "temperature": 0}
    with httpx.stream("POST", engine.base_url + "/v1/chat/completions", headers=engine.headers, json=body) as answer:
        next(answer.iter_lines())
    deadline_s = time.monotonic() + 20
    while any(slot["is_processing"] for slot in slots(engine)):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert all(slot["next_token"][0]["n_decoded"] < 300 for slot in slots(engine))


def test_the_base_in_a_tuned_models_place_is_found_out(
    run, engine: LlamaCppProcess, base_dir: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(checkpoint_dir, tmp_path / "checkpoint")
    with pytest.raises(Unavailable) as refused:
        run(certify(engine.base_url, engine.headers, checkpoint, served_files(base_dir, None)))
    assert refused.value.code == "parity_failed"


def slots(engine: LlamaCppProcess) -> list[dict[str, Any]]:
    return httpx.get(engine.base_url + "/slots", headers=engine.headers, timeout=60).json()


def test_a_file_that_is_no_model_is_refused_and_leaves_no_process(run, base_dir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes((base_dir / "model.gguf").read_bytes()[:100_000])
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(Unavailable) as refused:
        run(start_llama_cpp(options(base_dir, tmp_path, gguf_path=broken)))
    assert refused.value.code == "engine_start_failed"
    assert_ends(lambda: {child.pid for child in psutil.Process().children() if child.is_running()} <= before)


STARTER = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_serving_engine import options
from tunesmith.serving.engines.llama_cpp import start_llama_cpp

async def main():
    process = await start_llama_cpp(options(Path({base_dir!r}), Path({folder!r})))
    print(process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_an_engine_dies_with_its_server(base_dir: Path, tmp_path: Path) -> None:
    code = STARTER.format(tests=str(Path(__file__).parent), base_dir=str(base_dir), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child = psutil.Process(int(server.stdout.readline()))
        os.kill(server.pid, signal.SIGKILL)
    assert_ends(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def assert_ends(is_over: Any) -> None:
    deadline_s = time.monotonic() + 20
    while not is_over():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)

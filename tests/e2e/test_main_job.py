"""The main job on the real model: tune on the claims desk, then ask trainer and server the same and compare."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
import transformers
from live_server import LiveServer
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tunesmith.core.types import RunSpec
from tunesmith.data.tokens import RowTokenizer, TokenSequence
from tunesmith.trainer.batch import pack
from tunesmith.trainer.model import TrainedModel, load_model

DATA = Path(__file__).parents[2] / "examples" / "data"
NUM_ROWS, NUM_ASKED, MAX_TOKENS = 24, 5, 16
CLEAR_NATS = 0.5
"""Where the trainer prefers its first choice by this much, the 8-bit engine must choose it too."""


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key=server.key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def job(client: OpenAI) -> FineTuningJob:
    rows = (DATA / "train.jsonl").read_bytes().splitlines(keepends=True)[:NUM_ROWS]
    file = client.files.create(file=("train.jsonl", b"".join(rows)), purpose="fine-tune")
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 8, "batch_size": 4}}}
    created = client.fine_tuning.jobs.create(
        model="smollm2-135m-instruct",
        training_file=file.id,
        method=method,
        suffix="desk",
        seed=5,
        extra_body={"tunesmith": {"validation_split": 0.1}},
    )
    deadline = time.monotonic() + 300
    while (job := client.fine_tuning.jobs.retrieve(created.id)).status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < deadline, job.status
        time.sleep(0.2)
    assert job.status == "succeeded", job.error
    return job


def questions() -> list[list[dict[str, str]]]:
    """Rows it was trained on, whose answers it knows: elsewhere so small a run leaves near-ties."""
    rows = (DATA / "train.jsonl").read_bytes().splitlines()[:NUM_ASKED]
    return [json.loads(row)["messages"][:2] for row in rows]


def test_the_job_learned_and_counts_exactly(client: OpenAI, job: FineTuningJob, server: LiveServer) -> None:
    events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    losses = [event.data["train_loss"] for event in reversed(events) if event.type == "metrics"]
    assert losses[-1] < 0.5 * losses[0]
    spec = run_spec(server, job)
    metrics = (server.home / "runs" / job.id / "metrics.jsonl").read_bytes().splitlines()
    assert job.trained_tokens == sum(json.loads(line)["num_tokens"] for line in metrics)
    assert spec.total_steps == len(metrics)
    held_out = [event.message for event in events if "Held out" in event.message]
    assert any("2 of 24" in message for message in held_out), held_out


def test_trainer_and_server_give_the_same_greedy_answers(
    client: OpenAI, job: FineTuningJob, server: LiveServer
) -> None:
    spec = run_spec(server, job)
    tokenizer = RowTokenizer.from_dir(Path(spec.base_dir))
    trained = tuned_model(server, job, spec)
    num_whole = 0
    for messages in questions():
        answer = client.chat.completions.create(
            model=job.fine_tuned_model, messages=messages, temperature=0, max_tokens=MAX_TOKENS
        )
        choice = answer.choices[0]
        said = tokenizer.encode(choice.message.content)
        greedy, is_clear = greedy_answer(trained, tokenizer, messages)
        assert answer.usage.prompt_tokens == len(tokenizer.encode_prompt(messages))
        assert "<|im_end|>" not in choice.message.content
        assert choice.finish_reason == ("stop" if len(said) < MAX_TOKENS else "length")
        num_whole += said == greedy
        for position, (mine, theirs) in enumerate(zip(said, greedy, strict=False)):
            if mine != theirs:
                assert not is_clear[position], (choice.message.content, position)
                break
    assert num_whole >= NUM_ASKED - 2


def run_spec(server: LiveServer, job: FineTuningJob) -> RunSpec:
    return msgspec.json.decode((server.home / "runs" / job.id / "spec.json").read_bytes(), type=RunSpec)


def tuned_model(server: LiveServer, job: FineTuningJob, spec: RunSpec) -> TrainedModel:
    transformers.logging.disable_progress_bar()
    newest = max((server.home / "runs" / job.id / "checkpoints").glob("step-*"))
    return load_model(msgspec.structs.replace(spec, start_adapter_dir=str(newest)), torch.float32)


@torch.no_grad()
def greedy_answer(
    trained: TrainedModel, tokenizer: RowTokenizer, messages: list[dict[str, str]]
) -> tuple[list[int], list[bool]]:
    """(token ids of the trainer's likeliest answer, whether each was clearly the likeliest)."""
    prompt = tokenizer.encode_prompt(messages)
    answer: list[int] = []
    is_clear: list[bool] = []
    end = tokenizer.encode("<|im_end|>")[0]
    while len(answer) < MAX_TOKENS:
        ids = [*prompt, *answer]
        batch = pack([TokenSequence.of(1, [*ids, end], [False] * len(ids) + [True])])
        logits = trained.hidden(batch)[-1] @ trained.head_weight.T
        top = logits.topk(2)
        is_clear.append(bool(top.values[0] - top.values[1] > CLEAR_NATS))
        if int(top.indices[0]) == end:
            break
        answer.append(int(top.indices[0]))
    return answer, is_clear

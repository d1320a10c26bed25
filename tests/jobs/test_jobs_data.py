"""What a job trains on: kinds of rows, and the digest that proves it."""

import json
from typing import Any

import msgspec
import pytest
from job_world import World, rows
from real_trainer import make_real

from tunesmith.catalog.models import BaseModel, base_dir
from tunesmith.core.types import RunSpec
from tunesmith.data.digest import set_digest
from tunesmith.data.formats import CompletionRow, decode_row
from tunesmith.data.preview import preview
from tunesmith.data.split import held_out_rows
from tunesmith.data.tokens import RowTokenizer
from tunesmith.store.tables import JobRow

PAIRS = [{"prompt": f"Question {n}? ->", "completion": f" Answer {n}."} for n in range(12)]
PREFERENCE = {
    "input": {"messages": [{"role": "user", "content": "a"}]},
    "preferred_output": [{"role": "assistant", "content": "b"}],
    "non_preferred_output": [{"role": "assistant", "content": "c"}],
}
PROMPT = {"messages": [{"role": "user", "content": "a"}], "answer": "4"}


def lines(objects: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in objects)


def spec_of(world: World, job: JobRow) -> RunSpec:
    return msgspec.json.decode((world.run_dir(job.id) / "spec.json").read_bytes(), type=RunSpec)


def failed(world: World, **request: Any) -> dict[str, Any]:
    error = world.look_until_status(world.create(**request).id, "failed").error
    assert error is not None
    return error


def make_completion_model(world: World) -> None:
    manifest = base_dir(world.settings, "tiny") / "tunesmith.json"
    model = msgspec.json.decode(manifest.read_bytes(), type=BaseModel)
    manifest.write_bytes(msgspec.json.encode(msgspec.structs.replace(model, completions=True)))


def test_completions_are_trained_as_chats_by_option(sqlite_world: World) -> None:
    world = make_real(sqlite_world)
    job = world.create(training_file=world.upload(text=lines(PAIRS)), n_epochs=2, extra={"completions": "chat"})
    done = world.look_until_status(job.id, "succeeded")
    tokenizer = RowTokenizer.from_dir(base_dir(world.settings, "tiny"), completions="chat")
    expected = [preview(CompletionRow(**pair), tokenizer, 1) for pair in PAIRS]
    assert done.trained_tokens == 2 * sum(row.num_tokens for row in expected)
    assert done.data_digests == {"train": set_digest(bytes.fromhex(row.digest) for row in expected)}
    assert expected[0].conversations[0].rendered.startswith("<|im_start|>user\nQuestion 0? -><|im_end|>")


def test_completions_are_raw_text_for_a_model_that_continues_text(sqlite_world: World) -> None:
    world = make_real(sqlite_world)
    make_completion_model(world)
    job = world.create(training_file=world.upload(text=lines(PAIRS)), n_epochs=1)
    done = world.look_until_status(job.id, "succeeded")
    raw = sum(len(pair["prompt"]) + len(pair["completion"]) + 1 for pair in PAIRS)  # bytes are tokens, and the end
    assert done.trained_tokens == raw


def test_completions_for_a_chat_model_need_the_option(sqlite_world: World) -> None:
    error = failed(sqlite_world, training_file=sqlite_world.upload(text=lines(PAIRS)))
    assert error["code"] == "invalid_training_file"
    assert "chat model" in error["message"]
    assert '"completions": "chat"' in error["message"]


def test_raw_completions_are_refused_for_a_chat_model(sqlite_world: World) -> None:
    file = sqlite_world.upload(text=lines(PAIRS))
    error = failed(sqlite_world, training_file=file, extra={"completions": "plain"})
    assert (error["code"], error["param"]) == ("invalid_value", "tunesmith.completions")
    assert 'Use "chat"' in error["message"]


@pytest.mark.parametrize(("row", "what"), [(PREFERENCE, "preference pairs"), (PROMPT, "prompts for reinforcement")])
@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_rows_for_other_methods_fail_the_job(sqlite_world: World, row: dict[str, Any], what: str, param: str) -> None:
    error = failed(sqlite_world, **{param: sqlite_world.upload(text=lines([row] * 12))})
    assert (error["code"], error["param"]) == (f"invalid_{param}", param)
    assert f"holds {what}; supervised training takes conversations" in error["message"]


def test_a_job_records_what_is_trained_and_what_is_held_out(sqlite_world: World) -> None:
    world = sqlite_world
    job = world.look_until_status(world.create(extra={"validation_split": 0.2}).id, "succeeded")
    tokenizer = RowTokenizer.from_dir(base_dir(world.settings, "tiny"))
    digests = [bytes.fromhex(preview(decode_row(raw, 1), tokenizer, 1).digest) for raw in rows(20).splitlines()]
    held_out = held_out_rows(20, 0.2, job.seed)
    assert job.data_digests == {
        "train": set_digest(digest for row, digest in enumerate(digests) if row not in held_out),
        "valid": set_digest(digests[row] for row in sorted(held_out)),
    }
    spec = spec_of(world, job)
    assert {"train": spec.train_digest, "valid": spec.valid_digest} == job.data_digests


def test_a_template_that_changed_since_the_check_stops_the_run(sqlite_world: World) -> None:
    world = make_real(sqlite_world)
    job = world.create(n_epochs=1)
    world.look_until_status(job.id, "queued")
    template = base_dir(world.settings, "tiny") / "chat_template.jinja"
    template.write_text(template.read_text().replace("\n{{ message['content'] }}", "\n\n{{ message['content'] }}"))
    error = world.look_until_status(job.id, "failed").error
    assert error is not None
    assert error["code"] == "data_changed"
    assert "training rows give other tokens" in error["message"]

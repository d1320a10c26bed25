"""The quote is the job's: trained tokens to the token, whatever the request; and who pays when a job ends early.

The real trainer on a tiny model wherever tokens are compared.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from job_world import World, rows, wait_for
from real_trainer import make_real

from tunesmith.core.errors import DataError, InvalidRequest
from tunesmith.jobs.service import JobRequest, default_seed, estimate_files
from tunesmith.metering.actual import Actual
from tunesmith.metering.estimate import Quote
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.tables import JobRow


@pytest.fixture
def real_world(sqlite_world: World) -> World:
    return make_real(sqlite_world)


def uneven_rows(count: int) -> bytes:
    """Rows of very different lengths, some of several turns: a quote that misses a row is seen."""
    lines = []
    for number in range(count):
        turns = [
            {"role": "user", "content": f"Question {number} " + "and more " * (number * 7 % 11)},
            {"role": "assistant", "content": "yes " * (1 + number * 5 % 13)},
        ]
        lines.append(json.dumps({"messages": [{"role": "system", "content": "Be brief."}, *turns * (1 + number % 2)]}))
    return ("\n".join(lines) + "\n").encode()


def quote_of(job: JobRow) -> Quote:
    return msgspec.convert(job.quote, Quote)


def actual_of(job: JobRow) -> Actual:
    return msgspec.convert(job.actual, Actual)


def request_of(world: World, **request: Any) -> JobRequest:
    return JobRequest(**({"model": "tiny", "training_file": world.upload(text=uneven_rows(23))} | request))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"n_epochs": 3, "batch_size": 5},
        {"n_epochs": 2, "batch_size": 7, "extra": {"validation_split": 0.2}},
        {"n_epochs": 1, "batch_size": 256, "extra": {"validation_split": 0.5}, "seed": 11},
        {"extra": {"validation_split": 0.3}},
        {"n_epochs": 2, "validation_file": True},
        {"n_epochs": 1, "extra": {"training": "full"}},
    ],
)
def test_the_finished_job_has_trained_the_quoted_tokens(real_world: World, asked: dict[str, Any]) -> None:
    if asked.get("validation_file"):
        asked = asked | {"validation_file": real_world.upload(text=uneven_rows(9))}
    request = request_of(real_world, **asked)
    before = real_world.service.estimate(request)
    done = real_world.look_until_status(real_world.service.create(request).id, "succeeded")
    quote, actual = quote_of(done), actual_of(done)
    assert done.trained_tokens == quote.trained_tokens == actual.trained_tokens == before.trained_tokens
    assert quote.trained_tokens == quote.epoch_tokens * quote.n_epochs
    assert actual.cost == quote.cost == before.cost
    assert actual.ratios is not None
    assert (actual.ratios.trained_tokens, actual.ratios.cost) == (1.0, 1.0)
    assert quote.training_examples + quote.validation_examples == (32 if asked.get("validation_file") else 23)
    assert (before.seed, before.batch_size, before.total_steps) == (done.seed, quote.batch_size, quote.total_steps)
    assert actual.peak_memory_bytes
    assert actual.disk_bytes > 0
    lines = _metrics(real_world, done.id)
    assert len(lines) == quote.total_steps
    first_epoch = lines[: quote.total_steps // quote.n_epochs]
    assert sum(line["num_computed_tokens"] for line in first_epoch) * quote.n_epochs == quote.computed_tokens
    assert quote.shared_prefix_tokens == quote.trained_tokens - quote.computed_tokens > 0
    assert not quote.is_sharing_sampled


def test_a_job_on_a_tuned_model_is_quoted_exactly_too(real_world: World) -> None:
    first = real_world.look_until_status(real_world.create(n_epochs=1).id, "succeeded")
    request = request_of(real_world, model=first.fine_tuned_model, n_epochs=2, extra={"validation_split": 0.2})
    before = real_world.service.estimate(request)
    done = real_world.look_until_status(real_world.service.create(request).id, "succeeded")
    assert (before.model, before.base_model) == (first.fine_tuned_model, "tiny")
    assert done.trained_tokens == before.trained_tokens == quote_of(done).trained_tokens
    assert before.time.basis == "probe and past runs", "the first job is a past run of the same base model, and small"
    assert not list(real_world.settings.home.glob("estimate-*"))


def test_a_resumed_run_pays_once(real_world: World) -> None:
    """Paused in the middle, its trainer killed later, steps done twice: still the quoted tokens."""
    job = real_world.create(training_file=real_world.upload(text=uneven_rows(23)), n_epochs=40, batch_size=4)
    real_world.look_until_step(job.id, 2)
    real_world.service.pause(job.id)
    real_world.look_until_status(job.id, "paused")
    real_world.service.resume(job.id)
    real_world.look_until(lambda: _is_running_past(real_world, job.id, 10))
    _kill_trainer(real_world, job.id)
    done = real_world.look_until_status(job.id, "succeeded")
    assert done.num_restarts == 1
    assert done.trained_tokens == quote_of(done).trained_tokens
    assert actual_of(done).seconds >= 1


def test_a_cancelled_run_pays_for_what_it_trained(real_world: World) -> None:
    job = real_world.create(training_file=real_world.upload(text=uneven_rows(23)), n_epochs=50, batch_size=4)
    real_world.look_until_step(job.id, 3)
    real_world.service.cancel(job.id)
    real_world.look_until(lambda: not real_world.service.get(job.id).occupies_machine)
    gone = real_world.service.get(job.id)
    trained = sum(line["num_tokens"] for line in _metrics(real_world, job.id))
    assert gone.trained_tokens == actual_of(gone).trained_tokens == trained
    assert 0 < trained < quote_of(gone).trained_tokens
    cost, quoted = actual_of(gone).cost, quote_of(gone)
    assert cost is not None
    assert quoted.training_price_per_million_tokens is not None
    assert cost.value == trained * quoted.training_price_per_million_tokens.value / 1_000_000


def test_cancelled_while_paused_pays_up_to_the_pause(real_world: World) -> None:
    job = real_world.create(training_file=real_world.upload(text=uneven_rows(23)), n_epochs=50, batch_size=4)
    real_world.look_until_step(job.id, 3)
    real_world.service.pause(job.id)
    real_world.look_until_status(job.id, "paused")
    gone = real_world.service.cancel(job.id)
    trained = sum(line["num_tokens"] for line in _metrics(real_world, job.id))
    assert gone.trained_tokens == actual_of(gone).trained_tokens == trained > 0


def test_a_run_that_fails_pays_up_to_its_last_checkpoint(real_world: World) -> None:
    """Its data changes while it is paused: the trainer that goes on refuses it, and says where the run stands."""
    job = real_world.create(training_file=real_world.upload(text=uneven_rows(23)), n_epochs=50, batch_size=4)
    real_world.look_until_step(job.id, 3)
    real_world.service.pause(job.id)
    real_world.look_until_status(job.id, "paused")
    trained = sum(line["num_tokens"] for line in _metrics(real_world, job.id))
    (real_world.run_dir(job.id) / "train.jsonl").write_bytes(rows(12))
    real_world.service.resume(job.id)
    failed = real_world.look_until_status(job.id, "failed")
    assert failed.error is not None
    assert failed.error["code"] == "data_changed"
    assert failed.trained_tokens == actual_of(failed).trained_tokens == trained > 0
    result = json.loads((real_world.run_dir(job.id) / "result.json").read_bytes())
    assert result["step"] == len(_metrics(real_world, job.id))


def test_what_never_trained_costs_nothing(sqlite_world: World) -> None:
    bad = sqlite_world.look_until_status(sqlite_world.create(training_file=sqlite_world.upload(3)).id, "failed")
    assert (bad.quote, bad.trained_tokens, actual_of(bad).trained_tokens) == (None, None, 0)
    assert actual_of(bad).cost is None
    unchecked = sqlite_world.service.cancel(sqlite_world.create().id)
    assert (unchecked.trained_tokens, actual_of(unchecked).trained_tokens) == (None, 0)
    queued = sqlite_world.create_long()
    sqlite_world.look_until(lambda: sqlite_world.service.get(queued.id).quote)
    sqlite_world.service.cancel(queued.id)
    sqlite_world.look_until(lambda: sqlite_world.service.get(queued.id).actual)
    gone = sqlite_world.service.get(queued.id)
    cost = actual_of(gone).cost
    assert cost is not None
    assert (gone.trained_tokens, cost.amount, actual_of(gone).status) == (None, "0", "cancelled")


def test_a_trainer_that_dies_for_good_pays_up_to_its_last_checkpoint(real_world: World) -> None:
    supervisor = real_world.new_supervisor(max_trainer_restarts=0)
    job = real_world.create(training_file=real_world.upload(text=uneven_rows(23)), n_epochs=50, batch_size=8)
    real_world.look_until(lambda: _is_running_past(real_world, job.id, 8), supervisor)
    _kill_trainer(real_world, job.id)
    real_world.look_until(lambda: real_world.service.get(job.id).status == "failed", supervisor)
    failed = real_world.service.get(job.id)
    newest = max((real_world.run_dir(job.id) / "checkpoints").glob("step-*"))
    last_step = int(newest.name.removeprefix("step-"))
    paid = sum(line["num_tokens"] for line in _metrics(real_world, job.id) if line["step"] <= last_step)
    assert failed.trained_tokens == actual_of(failed).trained_tokens == paid > 0


def test_bad_data_is_an_answer_with_its_line(sqlite_world: World) -> None:
    broken = rows(12).replace(b'"Question 4?"', b"4")
    with pytest.raises(DataError) as caught:
        sqlite_world.service.estimate(request_of(sqlite_world, training_file=sqlite_world.upload(text=broken)))
    assert (caught.value.line, caught.value.code) == (5, "invalid_training_file")
    good, few = sqlite_world.upload(12), sqlite_world.upload(2)
    with pytest.raises(DataError) as caught:
        sqlite_world.service.estimate(request_of(sqlite_world, training_file=few))
    assert caught.value.code == "invalid_n_examples"
    bad_validation = sqlite_world.upload(text=b"{}\n")
    with pytest.raises(DataError) as caught:
        sqlite_world.service.estimate(request_of(sqlite_world, training_file=good, validation_file=bad_validation))
    assert caught.value.code == "invalid_validation_file"
    for wrong in ({"model": "none"}, {"training_file": "file-none"}, {"n_epochs": 99}):
        with pytest.raises(InvalidRequest):
            sqlite_world.service.estimate(request_of(sqlite_world, **wrong))
    assert not list(sqlite_world.settings.home.glob("estimate-*"))
    assert sqlite_world.service.list() == ([], False)


def test_a_bad_price_table_stops_the_money_and_not_the_job(sqlite_world: World) -> None:
    request = request_of(sqlite_world)
    good = sqlite_world.service.estimate(request)
    (sqlite_world.settings.home / "prices.json").write_text("{}")
    quote = sqlite_world.service.estimate(request)
    assert quote.no_prices is not None
    assert "prices.json" in quote.no_prices
    assert (quote.cost, quote.training_price_per_million_tokens, quote.hosting_per_hour) == (None, None, None)
    assert (quote.trained_tokens, quote.peak_memory_bytes) == (good.trained_tokens, good.peak_memory_bytes)
    done = sqlite_world.look_until_status(sqlite_world.create().id, "succeeded")
    assert done.quote is None
    warning = next(event for event in sqlite_world.events(done.id) if event.level == "warn")
    assert "prices.json" in warning.message


def test_the_price_that_was_quoted_is_the_price(real_world: World) -> None:
    """Prices change between quote and end: the quote holds."""
    price = {
        "training_per_million_tokens": "1000.5",
        "hosting_per_hour": 0,
        "input_per_million_tokens": 0,
        "output_per_million_tokens": 0,
    }
    file = real_world.settings.home / "prices.json"
    file.write_text(json.dumps({"currency": "EUR", "default": price}))
    job = real_world.create(n_epochs=1)
    real_world.look_until_status(job.id, "queued")
    file.write_text(json.dumps({"currency": "USD", "default": price | {"training_per_million_tokens": 1}}))
    done = real_world.look_until_status(job.id, "succeeded")
    cost = actual_of(done).cost
    assert cost is not None
    assert done.trained_tokens is not None
    assert (cost.currency, cost.value * 1_000_000) == ("EUR", done.trained_tokens * 1000 + done.trained_tokens / 2)


def test_local_files_are_quoted_as_uploaded_ones(sqlite_world: World, tmp_path: Path) -> None:
    train, valid = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    train.write_bytes(uneven_rows(23))
    valid.write_bytes(uneven_rows(9))
    request = request_of(sqlite_world, validation_file=sqlite_world.upload(text=uneven_rows(9)), n_epochs=2)
    there = sqlite_world.service.estimate(request)
    here = estimate_files(sqlite_world.settings, request, train, valid)
    assert (here.trained_tokens, here.seed, here.cost) == (there.trained_tokens, there.seed, there.cost)
    with pytest.raises(InvalidRequest, match="not available"):
        estimate_files(sqlite_world.settings, JobRequest(model="ft:none", training_file="x"), train, None)
    assert train.read_bytes() == uneven_rows(23)


@pytest.mark.parametrize("has_validation", [False, True])
def test_an_estimate_reads_stored_files_where_they_lie(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch, has_validation: bool
) -> None:
    valid = sqlite_world.upload(text=uneven_rows(9)) if has_validation else None
    request = request_of(sqlite_world, validation_file=valid)
    monkeypatch.setattr(LocalBlobs, "fetch", lambda *_: pytest.fail("copied"))
    monkeypatch.setattr("tunesmith.jobs.prepare.TemporaryDirectory", lambda **_: pytest.fail("made a folder"))
    assert sqlite_world.service.estimate(request).training_examples == 23


def test_files_of_a_store_elsewhere_are_copied_for_a_moment(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(sqlite_world, validation_file=sqlite_world.upload(text=uneven_rows(9)))
    here = sqlite_world.service.estimate(request)
    monkeypatch.setattr(LocalBlobs, "path", lambda *_: None)
    there = sqlite_world.service.estimate(request)
    assert (there.trained_tokens, there.validation_examples) == (here.trained_tokens, here.validation_examples)
    assert not list(sqlite_world.settings.home.glob("estimate-*"))


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
def test_a_file_deleted_while_it_is_estimated_says_so(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch, param: str
) -> None:
    files = {"training_file": sqlite_world.upload(12), "validation_file": sqlite_world.upload(11)}
    find = LocalBlobs.path

    def find_and_delete(blobs: LocalBlobs, key: str) -> Path | None:
        path = find(blobs, key)
        if key == files[param]:
            blobs.delete(key)
        return path

    monkeypatch.setattr(LocalBlobs, "path", find_and_delete)
    with pytest.raises(DataError, match="was deleted before") as caught:
        sqlite_world.service.estimate(request_of(sqlite_world, **files))
    assert caught.value.code == f"invalid_{param}"


def test_the_default_seed_depends_on_model_and_files() -> None:
    seeds = {default_seed("a", ["1", "2"]), default_seed("b", ["1", "2"]), default_seed("a", ["2", "1"])}
    assert len(seeds | {default_seed("a", ["1"])}) == 4


def _metrics(world: World, job_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world.run_dir(job_id) / "metrics.jsonl").read_bytes().splitlines()]


def _is_running_past(world: World, job_id: str, step: int) -> bool:
    file = world.run_dir(job_id) / "metrics.jsonl"
    return file.exists() and file.read_bytes().count(b"\n") > step


def _kill_trainer(world: World, job_id: str) -> None:
    import psutil

    (trainer,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and process.info["cmdline"][-1] == str(world.run_dir(job_id))
    ]
    os.kill(trainer.pid, signal.SIGKILL)
    wait_for(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE)

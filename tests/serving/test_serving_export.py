"""The merged file: right weights in the right rows, the training template, all or nothing."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from tunesmith.core.errors import Unavailable
from tunesmith.serving.export import export_for_serving, served_files
from tunesmith.serving.merge import full_updates, row_order
from tunesmith.serving.safetensors_file import read_tensors

Q8_STEP = 1 / 127
"""Q8_0 keeps multiples of 1/127 of the largest of each 32 weights; its float16 scale adds 0.06 steps at most."""


def weights(path: Path, *names: str) -> dict[str, np.ndarray]:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    return {name: gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type) for name in names}


def assert_equal_up_to_rounding(stored: np.ndarray, exact: np.ndarray) -> None:
    largest = np.abs(exact.reshape(-1, 32)).max(axis=1, keepdims=True)
    apart = np.abs(stored.reshape(-1, 32) - exact.reshape(-1, 32))
    assert (apart <= 0.57 * Q8_STEP * largest + 1e-6).all()


def test_merged_weights_are_base_plus_adapter_in_llama_cpp_row_order(base_dir: Path, checkpoint_dir: Path) -> None:
    names = ("blk.3.attn_q.weight", "blk.3.attn_k.weight", "blk.3.attn_v.weight", "blk.3.ffn_down.weight")
    modules = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")
    merged = served_files(base_dir, checkpoint_dir).gguf_path
    before, after = weights(base_dir / "model.gguf", *names), weights(merged, *names)
    factors = read_tensors(checkpoint_dir / "adapter_model.safetensors")
    for name, module in zip(names, modules, strict=True):
        prefix = f"base_model.model.model.layers.3.{module}"
        delta = 2.0 * factors[f"{prefix}.lora_B.weight"] @ factors[f"{prefix}.lora_A.weight"]
        if "_q" in name or "_k" in name:
            # A head's 64 rows are kept as pairs (i, i + 32): row 2i comes from i, row 2i + 1 from i + 32.
            order = [64 * (row // 64) + (row % 64) // 2 + 32 * (row % 2) for row in range(len(delta))]
            delta = delta[order]
        assert np.abs(delta).max() > 5 * Q8_STEP * np.abs(before[name]).max() / 127
        assert_equal_up_to_rounding(after[name], before[name] + delta)


def test_a_full_model_is_written_back_to_the_weights_it_came_from(base_dir: Path) -> None:
    """The base's safetensors were read from its GGUF by transformers, so the way back must give the same numbers."""
    base = gguf.GGUFReader(base_dir / "model.gguf")
    updates = full_updates(base, base_dir)
    assert updates.keys() == {tensor.name for tensor in base.tensors}
    names = ("blk.0.attn_q.weight", "blk.29.attn_k.weight", "blk.7.ffn_up.weight", "output_norm.weight")
    for name, weight in weights(base_dir / "model.gguf", *names).items():
        np.testing.assert_allclose(updates[name](weight), weight, atol=1e-6)


def test_row_order_moves_only_queries_and_keys(base_dir: Path) -> None:
    reader = gguf.GGUFReader(base_dir / "model.gguf")
    rows = np.arange(576, dtype=np.float32).reshape(576, 1)
    assert row_order(reader, "blk.0.attn_q.weight")(rows)[:4, 0].tolist() == [0, 32, 1, 33]
    assert np.array_equal(row_order(reader, "blk.0.attn_v.weight")(rows), rows)


def test_export_keeps_metadata_and_carries_the_training_template(base_dir: Path, checkpoint_dir: Path) -> None:
    files = served_files(base_dir, checkpoint_dir)
    base, merged = gguf.GGUFReader(base_dir / "model.gguf"), gguf.GGUFReader(files.gguf_path)
    changed = {
        name
        for name, field in base.fields.items()
        if not name.startswith("GGUF.") and field.contents() != merged.fields[name].contents()
    }
    assert changed == {"general.file_type", "tokenizer.chat_template"}
    assert merged.fields["tokenizer.chat_template"].contents() == files.chat_template
    kinds = {tensor.name: tensor.tensor_type.name for tensor in merged.tensors}
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_q.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


def test_export_works_once_and_leaves_nothing_else(base_dir: Path, checkpoint_dir: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(checkpoint_dir, tmp_path / "checkpoint")
    first = served_files(base_dir, checkpoint)
    made_at = first.gguf_path.stat().st_mtime_ns
    assert export_for_serving(base_dir, checkpoint) == first
    assert first.gguf_path.stat().st_mtime_ns == made_at
    assert {path.name for path in first.gguf_path.parent.iterdir()} == {first.gguf_path.name, "export.lock"}


def test_other_weights_or_template_are_another_file(base_dir: Path, checkpoint_dir: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(checkpoint_dir, tmp_path / "checkpoint")
    before = served_files(base_dir, checkpoint).gguf_path
    (checkpoint / "chat_template.jinja").write_text("other")
    assert served_files(base_dir, checkpoint).chat_template == "other"
    with_template = served_files(base_dir, checkpoint).gguf_path
    with (checkpoint / "adapter_model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert len({before, with_template, served_files(base_dir, checkpoint).gguf_path}) == 3


@pytest.mark.parametrize("change", [{"use_dora": True}, {"rank_pattern": {"q_proj": 2}}])
def test_an_adapter_that_is_not_plain_lora_is_refused(
    base_dir: Path, checkpoint_dir: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    checkpoint = shutil.copytree(checkpoint_dir, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("serve"))
    config = json.loads((checkpoint / "adapter_config.json").read_text())
    (checkpoint / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(Unavailable) as refused:
        export_for_serving(base_dir, checkpoint)
    assert refused.value.code == "export_failed"
    assert not list((checkpoint / "serve").glob("*.gguf"))


def test_a_checkpoint_without_weights_is_refused(base_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="holds no weights"):
        export_for_serving(base_dir, tmp_path)


def test_safetensors_of_every_float_type_are_read(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    values = torch.tensor([[1.5, -2.0], [0.25, 3.0]])
    kinds = {"a": torch.float32, "b": torch.float16, "c": torch.bfloat16}
    save_file({name: values.to(kind) for name, kind in kinds.items()}, tmp_path / "x.safetensors")
    for tensor in read_tensors(tmp_path / "x.safetensors").values():
        assert tensor.dtype == np.float32
        assert np.array_equal(tensor, values.numpy())

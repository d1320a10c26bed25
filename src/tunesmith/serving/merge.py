"""Write a tuned model as one GGUF file: the base's metadata, the tuned weights in 8 bits. numpy and gguf only.

    stored_OI = quantise(dequantise(base_OI) + permute(scale * B_OR @ A_RI))

Legend: O output features, I input features, R rank. ``permute`` reorders the output rows of query and key
projections, which llama.cpp keeps in another order than transformers for the llama architecture (interleaved instead
of split halves). Tensors are read, changed and written one at a time, so the memory needed is that of the largest
one. Not covered: adapters with anything but lora_A and lora_B on linear layers, and architectures whose weights the
conversion to GGUF changes otherwise (the parity certificate catches those).
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import gguf
import msgspec
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from tunesmith.core.errors import Unavailable
from tunesmith.serving.safetensors_file import read_tensors

Array = NDArray[Any]
Float = NDArray[np.float32]
Update = Callable[[Float], Float]
"""From the base's de-quantised weights to the tuned ones, both in llama.cpp's row order."""

PEFT_PREFIX = "base_model.model."
ROTATED_HALVES = frozenset({"llama"})
"""Architectures whose query and key rows llama.cpp keeps in its own order."""

Q8_BLOCK = 32
LLAMA_FTYPE_MOSTLY_Q8_0 = 7
"""From llama.h; shown by tools, without effect on loading."""


class LoraConfig(msgspec.Struct, frozen=True):
    """What of PEFT's adapter_config.json bears on the weights. ``modules_to_save`` and the like are refused."""

    r: int
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}

    @property
    def scale(self) -> float:
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


def write_merged(base: gguf.GGUFReader, updates: Mapping[str, Update], chat_template: str, to: Path) -> None:
    """Write the tuned model to ``to``. ``updates`` are by GGUF tensor name; other tensors keep their values.

    Raises Unavailable (``export_failed``) for an update of a tensor that the base does not have.
    """
    unknown = updates.keys() - {tensor.name for tensor in base.tensors}
    if unknown:
        raise export_failed(f"the base model has no tensor {min(unknown)}")
    writer = gguf.GGUFWriter(to, architecture(base))
    _copy_metadata(base, writer, chat_template)
    kinds = {tensor.name: _stored_kind(tensor, tensor.name in updates) for tensor in base.tensors}
    for tensor in base.tensors:
        _declare(writer, tensor, kinds[tensor.name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in base.tensors:
        writer.write_tensor_data(_stored(tensor, kinds[tensor.name], updates.get(tensor.name)))
    writer.close()


def lora_updates(base: gguf.GGUFReader, adapter_dir: Path) -> dict[str, Update]:
    """What an adapter in PEFT's format adds to each tensor. Raises Unavailable for one that cannot be merged."""
    config = msgspec.json.decode((adapter_dir / "adapter_config.json").read_bytes(), type=LoraConfig)
    if config.use_dora or config.rank_pattern or config.alpha_pattern:
        raise export_failed("the adapter is not a plain LoRA adapter")
    names = gguf_names(base)
    factors = read_tensors(adapter_dir / "adapter_model.safetensors")
    updates: dict[str, Update] = {}
    for module, (a_RI, b_OR) in _pairs(factors):
        name = names(module + ".weight")
        permute = row_order(base, name)
        updates[name] = _adder(a_RI, b_OR, config.scale, permute)
    return updates


def full_updates(base: gguf.GGUFReader, model_dir: Path) -> dict[str, Update]:
    """The weights of a full fine-tuning, by GGUF tensor name; the base's are replaced."""
    names = gguf_names(base)
    stored = {tensor.name for tensor in base.tensors}
    updates: dict[str, Update] = {}
    for hf_name, weight in read_tensors(model_dir / "model.safetensors").items():
        name = names(hf_name)
        if name == "output.weight" and name not in stored:
            continue  # tied to the embeddings: the file holds them once
        updates[name] = _replacer(weight, row_order(base, name))
    return updates


def architecture(reader: gguf.GGUFReader) -> str:
    return str(_value(reader, "general.architecture"))


def gguf_names(reader: gguf.GGUFReader) -> Callable[[str], str]:
    """The look-up from transformers' tensor names to GGUF's; it raises Unavailable for an unknown one."""
    arch = architecture(reader)
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(kind, int(_value(reader, f"{arch}.block_count")))

    def look_up(hf_name: str) -> str:
        name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise export_failed(f"GGUF has no name for {hf_name} in the architecture {arch}")
        return str(name)

    return look_up


def row_order(reader: gguf.GGUFReader, name: str) -> Callable[[Float], Float]:
    """How the rows of this tensor are reordered from transformers' order to llama.cpp's."""
    arch = architecture(reader)
    heads = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(name.split(".")[-2])
    if arch not in ROTATED_HALVES or heads is None:
        return lambda weight: weight
    num_heads = int(_value(reader, f"{arch}.attention.{heads}"))

    def permute(weight: Float) -> Float:
        halves = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, *weight.shape[1:])
        return halves.swapaxes(1, 2).reshape(weight.shape)

    return permute


def export_failed(reason: str) -> Unavailable:
    return Unavailable(f"The model cannot be written for serving: {reason}.", code="export_failed", param="model")


def _pairs(factors: Mapping[str, Float]) -> Iterator[tuple[str, tuple[Float, Float]]]:
    for name, a_RI in factors.items():
        module, is_a, _ = name.partition(".lora_A.weight")
        if is_a:
            yield module.removeprefix(PEFT_PREFIX), (a_RI, factors[module + ".lora_B.weight"])
        elif not name.endswith(".lora_B.weight"):
            raise export_failed(f"the adapter holds {name}, which is not a LoRA factor of a linear layer")


def _adder(a_RI: Float, b_OR: Float, scale: float, permute: Callable[[Float], Float]) -> Update:
    return lambda base_OI: base_OI + permute(np.float32(scale) * (b_OR @ a_RI))


def _replacer(weight: Float, permute: Callable[[Float], Float]) -> Update:
    return lambda _base: permute(weight)


def _stored_kind(tensor: gguf.ReaderTensor, is_updated: bool) -> Kind:
    """Matrices of the layers become Q8_0; vectors and the embeddings keep the base's type."""
    if len(tensor.shape) < 2:
        return cast(Kind, Kind.F32) if is_updated else tensor.tensor_type
    is_embedding = tensor.name in ("token_embd.weight", "output.weight")
    is_quantisable = int(tensor.shape[0]) % Q8_BLOCK == 0
    return tensor.tensor_type if (is_embedding and not is_updated) or not is_quantisable else cast(Kind, Kind.Q8_0)


def _declare(writer: gguf.GGUFWriter, tensor: gguf.ReaderTensor, kind: Kind) -> None:
    shape = tuple(int(size) for size in reversed(tensor.shape))
    byte_shape = gguf.quant_shape_to_byte_shape(shape, kind)
    num_bytes = int(np.prod(byte_shape))
    if kind in (Kind.F32, Kind.F16):
        dtype = np.dtype(np.float32 if kind == Kind.F32 else np.float16)
        writer.add_tensor_info(tensor.name, shape, dtype, num_bytes)
    else:
        writer.add_tensor_info(tensor.name, byte_shape, np.dtype(np.uint8), num_bytes, raw_dtype=kind)


def _stored(tensor: gguf.ReaderTensor, kind: Kind, update: Update | None) -> Array:
    if update is None and kind == tensor.tensor_type:
        return cast(Array, tensor.data)
    weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    tuned = weight if update is None else update(weight)
    return cast(Array, gguf.quants.quantize(np.ascontiguousarray(tuned), kind))


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, chat_template: str) -> None:
    replaced = {"general.architecture", "general.file_type", gguf.Keys.Tokenizer.CHAT_TEMPLATE}
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in replaced:
            item_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=item_type)
    writer.add_file_type(LLAMA_FTYPE_MOSTLY_Q8_0)
    writer.add_chat_template(chat_template)


def _value(reader: gguf.GGUFReader, name: str) -> Any:
    return reader.fields[name].contents()

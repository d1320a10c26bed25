"""Which form of a tuned model serves best: ``python bench/serve_forms.py BASE_DIR CHECKPOINT_DIR``.

Forms: the base alone, an f32 adapter on it, merged to Q8_0 (what Tunesmith does), merged to F16. For each: prefill and
decode tokens/s with 1 and 8 streams through the engine's own HTTP interface (interleaved, medians of the repeats), the
file's size, and the log-probability difference to the trainer on the checkpoint's parity.json. JSON on stdout.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import gguf
import httpx
import msgspec
import numpy as np

from bare_engine import HEADERS, bare_engine
from tunesmith.catalog.fetch import GGUF_FILE
from tunesmith.serving import merge
from tunesmith.serving.parity import ParityRows, differences
from tunesmith.serving.safetensors_file import read_tensors

PREFILL_TOKENS, DECODE_TOKENS = 128, 32
SIZES = {"context_tokens": 1024, "num_parallel": 8}
FRESH = itertools.count()


def write_adapter(reader: gguf.GGUFReader, adapter_dir: Path, to: Path) -> None:
    """PEFT's format to llama.cpp's adapter format, float32. Rows of A are not permuted, rows of q's and k's B are."""
    config = msgspec.json.decode((adapter_dir / "adapter_config.json").read_bytes(), type=merge.LoraConfig)
    writer = gguf.GGUFWriter(to, merge.architecture(reader))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, config.lora_alpha)
    names = merge.gguf_names(reader)
    for name, factor in read_tensors(adapter_dir / "adapter_model.safetensors").items():
        module, kind, _ = name.removeprefix(merge.PEFT_PREFIX).rsplit(".", 2)
        tensor = names(module + ".weight")
        if kind == "lora_B":
            factor = merge.row_order(reader, tensor)(factor)
        writer.add_tensor(f"{tensor}.{kind.lower()}", np.ascontiguousarray(factor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_forms(base_gguf: Path, checkpoint: Path, folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """Form name to (model file, adapter file); prints how long each took to write."""
    base = gguf.GGUFReader(base_gguf)
    template = (checkpoint / "chat_template.jinja").read_text()
    adapter, q8, f16 = folder / "adapter.gguf", folder / "q8.gguf", folder / "f16.gguf"
    timed("write adapter", lambda: write_adapter(base, checkpoint, adapter))
    updates = merge.lora_updates(base, checkpoint)
    timed("write merged q8_0", lambda: merge.write_merged(base, updates, template, q8))
    stored_kind = merge._stored_kind
    merge._stored_kind = lambda tensor, is_updated: (  # the form that lost, made by the same writer
        gguf.GGMLQuantizationType.F16 if is_updated else stored_kind(tensor, is_updated)
    )
    timed("write merged f16", lambda: merge.write_merged(base, updates, template, f16))
    merge._stored_kind = stored_kind
    return {
        "base": (base_gguf, None),
        "adapter f32 on base": (base_gguf, adapter),
        "merged q8_0": (q8, None),
        "merged f16": (f16, None),
    }


def timed(what: str, work) -> None:
    started = time.perf_counter()
    work()
    print(f"{what}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)


async def ask(client: httpx.AsyncClient, url: str, num_prompt: int, num_answer: int) -> None:
    rng = np.random.default_rng(next(FRESH))  # new text each time: nothing comes from the engine's cache
    question = {
        "prompt": rng.integers(1000, 40000, num_prompt).tolist(),
        "n_predict": num_answer,
        "ignore_eos": True,
        "temperature": 0,
        "cache_prompt": False,
    }
    (await client.post(f"{url}/completion", json=question)).raise_for_status()


async def rate(url: str, num_streams: int, num_prompt: int, num_answer: int) -> float:
    """Tokens/s over all streams: of the prompt where the answer is one token, of the answer otherwise."""
    async with httpx.AsyncClient(headers=HEADERS, timeout=None) as client:
        started = time.perf_counter()
        await asyncio.gather(*(ask(client, url, num_prompt, num_answer) for _ in range(num_streams)))
        seconds = time.perf_counter() - started
    return num_streams * (num_prompt if num_answer == 1 else num_answer) / seconds


async def parity(url: str, checkpoint: Path) -> dict[str, float]:
    rows = msgspec.json.decode((checkpoint / "parity.json").read_bytes(), type=ParityRows).rows
    measured = [await differences(url, HEADERS, row) for row in rows]
    apart = [value for row, _ in measured for value in row]
    likeliest = [row[0] for row, _ in measured]
    return {
        "mean": round(statistics.mean(apart), 4),
        "max": round(max(apart), 4),
        "max_of_likeliest": round(max(likeliest), 4),
        "same_likeliest": f"{sum(same for _, same in measured)}/{len(rows)}",
    }


CASES = {
    "prefill x1": (1, PREFILL_TOKENS, 1),
    "prefill x8": (8, PREFILL_TOKENS, 1),
    "decode x1": (1, 4, DECODE_TOKENS),
    "decode x8": (8, 4, DECODE_TOKENS),
}


async def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, object]]:
    base_gguf, checkpoint = arguments.base_dir / GGUF_FILE, arguments.checkpoint_dir
    template = (checkpoint / "chat_template.jinja").read_text()
    forms = write_forms(base_gguf, checkpoint, folder)
    rates: dict[str, dict[str, list[float]]] = {form: {case: [] for case in CASES} for form in forms}
    results: dict[str, dict[str, object]] = {form: {} for form in forms}
    for repeat in range(arguments.repeats):
        for form, (model, adapter) in forms.items():
            with bare_engine(model, template, adapter=adapter, **SIZES, num_threads=arguments.threads) as url:
                if repeat == 0:
                    results[form]["difference_to_trainer"] = await parity(url, checkpoint)
                await rate(url, 1, 32, 4)
                for case, sizes in CASES.items():
                    rates[form][case].append(await rate(url, *sizes))
            print(repeat, form, {case: round(values[-1], 1) for case, values in rates[form].items()}, file=sys.stderr)
    for form, (model, adapter) in forms.items():
        results[form]["tokens_per_s"] = {case: round(statistics.median(v), 1) for case, v in rates[form].items()}
        results[form]["bytes"] = model.stat().st_size + (adapter.stat().st_size if adapter else 0)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base_dir", type=Path)
    parser.add_argument("checkpoint_dir", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(arguments, Path(folder))), indent=1))


if __name__ == "__main__":
    main()

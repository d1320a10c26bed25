"""Turn a GGUF file into the folder that the trainer reads: ``python -m tunesmith.trainer.import_gguf FILE DIR``.

Weights are de-quantised to float32, so the trainer computes with exactly the numbers that the engine serves. Writes
config.json, model.safetensors, tokenizer.json, tokenizer_config.json and the model's own chat_template.jinja.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def import_gguf(file: Path, folder: Path) -> None:
    """De-quantise ``file`` into ``folder``; raises what transformers raises for an unknown architecture."""
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    model.hf_quantizer = None  # the weights are plain float32 now: say so, else they cannot be saved
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    import_gguf(Path(sys.argv[1]), Path(sys.argv[2]))

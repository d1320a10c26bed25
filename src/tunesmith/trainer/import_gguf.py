"""Turn a GGUF file into the folder that the trainer reads: ``python -m tunesmith.trainer.import_gguf FILE DIR``.

Weights are de-quantised to float32, so the trainer computes with exactly the numbers that the engine serves. Writes
config.json, model.safetensors, tokenizer.json, tokenizer_config.json and the model's own chat_template.jinja.
"""

import sys
from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

# transformers reads the vocabulary and the merges but not the pre-tokeniser that the file names, and so joins digits
# that the model never saw joined. Only names whose ids were checked against the engine's stand here.
PRE_TOKENIZERS = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


def import_gguf(file: Path, folder: Path) -> None:
    """De-quantise ``file`` into ``folder``; raises what transformers raises for an unknown architecture.

    Raises ValueError for a tokeniser that was never checked against the engine.
    """
    name = GGUFReader(file).fields["tokenizer.ggml.pre"].contents()
    if name not in PRE_TOKENIZERS:
        raise ValueError(f"the file's pre-tokeniser {name!r} is not known; known are {', '.join(PRE_TOKENIZERS)}")
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    tokenizer.backend_tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]()
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    model.hf_quantizer = None  # the weights are plain float32 now: say so, else they cannot be saved
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    import_gguf(Path(sys.argv[1]), Path(sys.argv[2]))

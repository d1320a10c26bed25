"""The trainer itself in a world whose tests otherwise drive a protocol process."""

from job_world import World
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.catalog.models import base_dir
from tunesmith.jobs.launchers.local import TRAINER_COMMAND


def make_real(world: World) -> World:
    """The tiny base model gets weights, and jobs the trainer itself."""
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(base_dir(world.settings, "tiny"))
    world.command = TRAINER_COMMAND
    world.supervisor = world.new_supervisor()
    return world

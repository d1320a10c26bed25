"""Models in float64 for the exactness tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two test processes share two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    yield
    torch.set_num_threads(before)

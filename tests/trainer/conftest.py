from pathlib import Path

import pytest

import tiny


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 30,000 parameters."""
    return tiny.make_tiny_base(tmp_path_factory.mktemp("base") / "tiny-llama")

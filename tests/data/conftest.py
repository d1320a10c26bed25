from pathlib import Path

import pytest

import tiny
from tunesmith.data.tokens import RowTokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(tiny_folder: Path) -> RowTokenizer:
    return RowTokenizer.from_dir(tiny_folder)

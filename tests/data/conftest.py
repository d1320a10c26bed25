from importlib import resources
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import tiny
from tunesmith.data.render import ChatTemplate
from tunesmith.data.tokens import RowTokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(tiny_folder: Path) -> RowTokenizer:
    return RowTokenizer.from_dir(tiny_folder)


@pytest.fixture(scope="session")
def tools_tokenizer(tiny_folder: Path) -> RowTokenizer:
    """With the catalog's template, which renders tool calls."""
    names = ChatTemplate.from_dir(tiny_folder).special_tokens
    source = (resources.files("tunesmith.catalog") / "templates" / "chatml-tools.jinja").read_text()
    return RowTokenizer(Tokenizer.from_file(str(tiny_folder / "tokenizer.json")), ChatTemplate(source, names))

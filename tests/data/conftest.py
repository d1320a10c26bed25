from importlib import resources
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import tiny
from tunesmith.catalog.embedding import install_embedding_model
from tunesmith.catalog.fetch import install_base_model
from tunesmith.catalog.models import embedded_model
from tunesmith.core.settings import Settings
from tunesmith.data.render import ChatTemplate
from tunesmith.data.tokens import RowTokenizer

CACHE = Settings(home=Path(__file__).parents[2] / ".cache" / "tunesmith")


@pytest.fixture(scope="session")
def installed_base() -> Path:
    """The embedded base model in the repository's cache, fetched if need be."""
    return install_base_model(CACHE, embedded_model().id, print)


@pytest.fixture(scope="session")
def installed_embedder() -> Settings:
    """A home that has the embedding model, fetched if need be."""
    install_embedding_model(CACHE, print)
    return CACHE


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

"""What the package imports is what it declares: tests run with more installed than a user has."""

import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

SRC = Path(__file__).parents[2] / "src" / "tunesmith"
EXTRAS = {"psycopg", "obstore"}  # imported only where the settings ask for PostgreSQL or S3
NEEDED_BY_OTHERS = {"accelerate"}  # transformers imports it to read a GGUF file


def test_every_import_is_a_dependency() -> None:
    installed = closure("tunesmith")
    owners = packages_distributions()
    missing = {
        module
        for module in imported_modules() - EXTRAS - set(sys.stdlib_module_names) - {"tunesmith"}
        if not {normal(owner) for owner in owners[module]} & installed
    }
    assert not missing
    assert installed >= NEEDED_BY_OTHERS


def imported_modules() -> set[str]:
    found: set[str] = set()
    for file in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
                found.add(node.module.partition(".")[0])
    return found


def closure(package: str) -> set[str]:
    """The package and all that it requires without extras, by normalised name."""
    seen: set[str] = set()
    waiting = [package]
    while waiting:
        name = normal(waiting.pop())
        if name not in seen:
            seen.add(name)
            waiting += [re.split(r"[^\w.-]", line)[0] for line in requires_or_none(name) if "extra ==" not in line]
    return seen


def requires_or_none(name: str) -> list[str]:
    try:
        return requires(name) or []
    except ModuleNotFoundError:  # for another system or Python
        return []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

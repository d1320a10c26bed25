"""What exists is documented, and what is documented exists."""

import ast
import runpy
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from tunesmith.api.wire import complaints
from tunesmith.cli.main import app
from tunesmith.core.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
SOURCES = sorted((ROOT / "src").rglob("*.py"))
FOR_THE_COMMAND_LINE = {"TUNESMITH_BASE_URL", "TUNESMITH_API_KEY"}
SAID_IN_WORDS_ONLY = {"unknown_url", "method_not_supported"}
"""Codes that api/errors.py pairs with a message in a table, not in a call."""


def headings(page: Path) -> list[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line.lstrip("#").strip() for line in lines if line.startswith("## ")]


def test_every_setting_has_its_heading_and_no_other_has() -> None:
    settings = {PREFIX + field.name.upper() for field in fields(Settings)}
    found = headings(REFERENCE / "settings.md")
    assert sorted(found) == sorted(settings | FOR_THE_COMMAND_LINE)


def test_documented_defaults_are_the_defaults() -> None:
    sections = (REFERENCE / "settings.md").read_text(encoding="utf-8").split("\n## ")[1:]
    shown = {section.split("\n", 1)[0]: section for section in sections}
    for field in fields(Settings):
        default = getattr(Settings(home=Path("~/.tunesmith")), field.name)
        if default == "":
            continue
        text = f"{default:g}" if isinstance(default, float) else str(default)
        assert f"`{text}`" in shown[PREFIX + field.name.upper()] or f"`{text}`," in shown[PREFIX + field.name.upper()]


def test_the_command_reference_is_current() -> None:
    written = runpy.run_path(str(REFERENCE / "make_cli.py"))["write_reference"]()
    current = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert current == written, "run .venv/bin/python docs/reference/make_cli.py"


def test_every_command_has_its_heading() -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8").splitlines()
    names = [name for name in app if not name.startswith("-")]
    assert {"serve", "doctor", "files", "data", "jobs", "models", "chat"} == set(names)
    for noun in names:
        assert f"### tunesmith {noun}" in page
        for verb in app[noun]:
            assert verb.startswith("-") or f"#### tunesmith {noun} {verb}" in page


def test_every_error_code_has_its_heading_and_no_other_has() -> None:
    codes = {code for path in SOURCES for code in _codes(ast.parse(path.read_text(encoding="utf-8")))}
    codes |= {row[-1] for row in complaints._LENGTH.values()}
    codes |= {f"{number}_{row[-1]}" for number in ("integer", "decimal") for row in complaints._BOUND.values()}
    codes |= SAID_IN_WORDS_ONLY | {"invalid_training_file", "invalid_validation_file"}
    assert sorted(headings(REFERENCE / "errors.md")) == sorted(codes)


def test_every_error_class_is_in_the_table() -> None:
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    for node in ast.parse((ROOT / "src/tunesmith/core/errors.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name != "TunesmithError":
            assert node.name in page


def _codes(tree: ast.AST) -> Iterator[str]:
    """Texts given as ``code=`` in a call, and those with which a job is recorded as failed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "code":
                    yield from _plain_texts(keyword.value)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "record_failed":
                yield from _plain_texts(node.args[1])


def _plain_texts(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _plain_texts(value.body)
        yield from _plain_texts(value.orelse)
    elif isinstance(value, ast.BoolOp):
        for choice in value.values:
            yield from _plain_texts(choice)

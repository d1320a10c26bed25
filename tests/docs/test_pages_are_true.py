"""Links lead somewhere, and every command line in the pages is one that the program accepts."""

import re
import shlex
from pathlib import Path

import pytest

from tunesmith.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
GENERATED = ROOT / "docs" / "reference" / "cli.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def command_lines() -> list[str]:
    """Lines of code blocks that run tunesmith, with their continuation lines."""
    found = []
    for page in PAGES:
        text = re.sub(r" *\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for line in text.splitlines() if page != GENERATED else []:
            place = re.match(r"(?:    )?(?:\w+=\S+ )*(?:\.venv/bin/)?tunesmith (.+)$", line)
            if place and (line.startswith("    ") or f"```\n{line}" in text or f"\n{line}\n" in text):
                found.append(re.sub(r'"\$\(.*\)"', '"..."', place.group(1)))
    return found


def test_there_are_command_lines_to_check() -> None:
    assert len(command_lines()) >= 10


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_are_accepted(line: str) -> None:
    command, _, unused, _ = app.parse_known_args(shlex.split(line, comments=True))
    assert command is not None
    assert not unused

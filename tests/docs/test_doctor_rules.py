"""Every rule of the doctor has its heading and an example, and the doctor finds the example."""

import hashlib
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

import tiny
from tunesmith.data.doctor import check
from tunesmith.data.render import ChatTemplate
from tunesmith.data.rules import RULES
from tunesmith.data.tokens import RowTokenizer

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MAKER = runpy.run_path(str(REFERENCE / "make_doctor_rules.py"))
EXAMPLES: dict[str, Any] = MAKER["EXAMPLES"]
LIMIT = 1000
ABOUT_OTHER_LINES = {"missing_system_message", "validation_overlap", "double_bos"}
"""Their examples are found in rows before the example's own."""
STRIPPING = tiny.CHATML.replace("message['content'] +", "message['content'] | trim +")
REFUSING = "{% if 'REFUSE' in messages[0]['content'] %}{{ raise_exception('Roles must alternate') }}{% endif %}"
TWO_STARTS = "{{ '<|endoftext|><|endoftext|>' }}"
TEMPLATES = {
    "zero_supervised_tokens": STRIPPING,
    "template_refuses_row": REFUSING + tiny.CHATML,
    "double_bos": TWO_STARTS + tiny.CHATML,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def row_tokenizer(folder: Path, source: str) -> RowTokenizer:
    template = ChatTemplate(source, {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"})
    return RowTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), template)


def bag_of_words(texts: list[str]) -> NDArray[np.float32]:
    """Vectors in which shared words are similarity."""
    vectors = np.zeros((len(texts), 2**14), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            place = int.from_bytes(hashlib.sha256(word.strip(".,?").encode()).digest()[:4], "big") % vectors.shape[1]
            vectors[row, place] += 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def test_the_page_is_current() -> None:
    current = (REFERENCE / "doctor-rules.md").read_text(encoding="utf-8")
    assert current == MAKER["write_reference"](), "run .venv/bin/python docs/reference/make_doctor_rules.py"


def test_every_rule_has_its_heading_and_no_other_has() -> None:
    lines = (REFERENCE / "doctor-rules.md").read_text(encoding="utf-8").splitlines()
    assert [line[3:] for line in lines if line.startswith("## ")] == list(RULES)
    assert set(EXAMPLES) == set(RULES)


def test_no_id_is_given_twice() -> None:
    from tunesmith.data import rules

    areas = [value for name, value in vars(rules).items() if isinstance(value, tuple) and name.isupper()]
    ids = [rule.id for area in areas for rule in area]
    assert sorted(ids) == sorted(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_the_doctor_finds_the_example(rule: str, folder: Path, tmp_path: Path) -> None:
    example = EXAMPLES[rule]
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\n".join(example.lines()) + b"\n")
    validation = None
    if example.validation:
        validation = tmp_path / "validation.jsonl"
        validation.write_bytes(b"\n".join(MAKER["_line"](row) for row in example.validation))
    report = check(
        path,
        tokenizer=row_tokenizer(folder, TEMPLATES.get(rule, tiny.CHATML)),
        limit_tokens=LIMIT,
        validation=validation,
        embed=bag_of_words,
    )
    groups = {group.rule: group for group in report.groups}
    assert rule in groups, list(groups)
    if rule not in ABOUT_OTHER_LINES:
        assert any(found.line is None or found.line > example.before for found in groups[rule].samples)


def test_the_rows_before_an_example_are_good(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\n".join(MAKER["_line"](MAKER["good_row"](number)) for number in range(60)))
    report = check(path, tokenizer=row_tokenizer(folder, tiny.CHATML), limit_tokens=LIMIT, embed=bag_of_words)
    assert report.verdict == "good"
    assert {group.rule for group in report.groups} <= {"missing_system_message"}

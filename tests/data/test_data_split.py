"""Splitting: every row on one side, every label in both, alike rows together, the same for the same seed."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import DataError, InvalidRequest
from tunesmith.data import split_file as module
from tunesmith.data.split_file import split_file
from tunesmith.data.split_plan import plan_split

COLOURS = ("red", "green", "blue")
TOPICS = (
    *("roof", "pipe", "door", "lamp", "wall", "sink", "fence", "gutter"),
    *("chimney", "window", "stair", "tile", "beam", "floor", "vault", "attic"),
)


def chat(user: str, assistant: str) -> bytes:
    row = {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}
    return json.dumps(row).encode()


def question(number: int) -> str:
    words = [TOPICS[number * step % len(TOPICS)] for step in (1, 3, 7)]
    return f"Case {number * 7919}: what shall we do about the {' and the '.join(words)} of house {number}?"


def labelled(num_rows: int) -> list[bytes]:
    """Half red, a third green, the rest blue."""
    return [chat(question(n), COLOURS[0 if n % 6 < 3 else 1 if n % 6 < 5 else 2]) for n in range(num_rows)]


def run(tmp_path: Path, rows: list[bytes], end: bytes = b"\n", **options: Any) -> tuple[list[bytes], list[bytes], Any]:
    source, train, valid = (tmp_path / name for name in ("in.jsonl", "train.jsonl", "valid.jsonl"))
    source.write_bytes(end.join(rows))
    summary = split_file(source, train, valid, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "train.jsonl", "valid.jsonl"]
    parts = [path.read_bytes().splitlines() for path in (train, valid)]
    assert (len(parts[0]), len(parts[1])) == (summary.num_train, summary.num_valid)
    return parts[0], parts[1], summary


def answer(row: bytes) -> str:
    return str(json.loads(row)["messages"][-1]["content"])


def test_rows_keep_their_bytes_and_order(tmp_path: Path) -> None:
    rows = [b"\xef\xbb\xbf" + labelled(30)[0], b"", *labelled(30)[1:]]
    train, valid, summary = run(tmp_path, rows, end=b"\r\n")
    plain = [row.removeprefix(b"\xef\xbb\xbf") for row in rows if row]
    assert sorted(train + valid) == sorted(plain)
    assert [row for row in plain if row in set(train)] == train
    assert [row for row in plain if row in set(valid)] == valid
    assert (summary.num_valid, summary.num_valid_asked, summary.alike_by, summary.num_alike) == (6, 6, "prompt", 0)


def test_labels_give_the_same_share(tmp_path: Path) -> None:
    _, valid, summary = run(tmp_path, labelled(120), share=0.25)
    assert Counter(map(answer, valid)) == {"red": 15, "green": 10, "blue": 5}
    assert [(label.answer, label.num_train, label.num_valid) for label in summary.labels] == [
        ("red", 45, 15),
        ("green", 30, 10),
        ("blue", 15, 5),
    ]


def test_labels_with_personal_data_are_counted_on_both_sides(tmp_path: Path) -> None:
    rows = [chat(question(n), f"Write to {COLOURS[n % 2]}@example.com" if n % 3 else "red") for n in range(90)]
    _, valid, summary = run(tmp_path, rows, share=0.2)
    assert [(label.answer, label.num_train, label.num_valid) for label in summary.labels] == [
        ("Write to [EMAIL]", 48, 12),
        ("red", 24, 6),
    ]
    assert sum(answer(row) != "red" for row in valid) == 12


def test_answers_that_are_texts_are_no_labels(tmp_path: Path) -> None:
    rows = [chat(question(n), f"You had better look at number {n}, and soon.") for n in range(40)]
    assert run(tmp_path, rows, count=7)[2].labels is None


def test_the_seed_decides(tmp_path: Path) -> None:
    parts = []
    for place, seed in enumerate((1, 1, 2)):
        (tmp_path / str(place)).mkdir()
        parts.append(run(tmp_path / str(place), labelled(60), seed=seed)[1])
    assert parts[0] == parts[1] != parts[2]


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    rows = []
    for number in range(40):
        rows += [chat(question(number), COLOURS[number % 3]), chat(question(number).upper() + " Please!", "red")]
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        train, _, summary = run(folder, rows, seed=seed)
        sides = [
            {row in side for row in pair} for pair in zip(rows[::2], rows[1::2], strict=True) for side in (set(train),)
        ]
        assert all(len(side) == 1 for side in sides)
        assert (summary.num_alike, summary.num_valid) == (80, 16)


def test_rows_with_one_prompt_are_told_apart_by_their_answers(tmp_path: Path) -> None:
    rows = [chat("Write a line.", f"{question(n)} Nobody knows, said number {n}.") for n in range(20)]
    assert run(tmp_path, rows)[2].alike_by == "row"


def test_a_huge_file_keeps_equal_prompts_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COMPARED_CHARS", 1000)
    rows = [row for row in labelled(30) for _ in range(2)]
    train, valid, summary = run(tmp_path, rows)
    assert not set(train) & set(valid)
    assert (summary.alike_by, summary.num_valid, summary.num_alike) == ("equal_prompt", 12, 60)


def test_every_kind_of_row_can_be_split(tmp_path: Path) -> None:
    ask = {"messages": [{"role": "user", "content": "q"}]}
    pair = {"preferred_output": [{"role": "assistant", "content": "a"}]}
    pair["non_preferred_output"] = [{"role": "assistant", "content": "b"}]
    for kind in range(3):
        rows = []
        for number in range(10):
            ask = {"messages": [{"role": "user", "content": question(number)}]}
            rows.append(
                ({"input": ask, **pair}, {**ask, "expected": 1}, {"prompt": question(number), "completion": "x"})[kind]
            )
        (tmp_path / str(kind)).mkdir()
        assert run(tmp_path / str(kind), [json.dumps(row).encode() for row in rows])[2].num_valid == 2


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (10, {"share": 0.0}, "share is 0"),
        (10, {"share": 1.0}, "share is 1"),
        (10, {"share": float("nan")}, "share is nan"),
        (10, {"share": 0.5, "count": 3}, "both"),
        (10, {"count": 10}, "has 10 rows"),
        (10, {"count": 0}, "count is 0"),
        (10, {"seed": -1}, "seed is -1"),
        (1, {}, "1 row"),
        (0, {}, "0 row"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, rows: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run(tmp_path, labelled(rows), **options)
    assert words in caught.value.message
    assert caught.value.mend
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_alike_rows_that_cannot_be_parted_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="nearly the same"):
        run(tmp_path, [labelled(1)[0]] * 10)
    halves = [row for row in labelled(2) for _ in range(5)]
    with pytest.raises(InvalidRequest, match="smallest group has 5 rows"):
        run(tmp_path, halves)
    assert run(tmp_path, halves, count=5)[2].num_valid == 5


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path, [*labelled(12), b'{"messages": []}'])
    assert caught.value.line == 13
    assert "drop_rows" in str(caught.value)


@given(st.data())
def test_a_plan_keeps_every_promise(data: st.DataObject) -> None:
    num_rows = data.draw(st.integers(2, 60))
    groups = data.draw(st.lists(st.integers(0, num_rows), min_size=num_rows, max_size=num_rows))
    labels = data.draw(st.none() | st.lists(st.sampled_from("abcd"), min_size=num_rows, max_size=num_rows))
    num_valid = data.draw(st.integers(1, num_rows - 1))
    chosen = plan_split(groups, labels, num_valid, seed=3)
    assert len(chosen) <= num_valid
    assert chosen <= set(range(num_rows))
    for group in set(groups):
        assert len({row in chosen for row in range(num_rows) if groups[row] == group}) == 1
    if labels is None and len(set(groups)) == num_rows:
        assert len(chosen) == num_valid
    if labels is not None and len(set(groups)) == num_rows:
        left = {label: labels.count(label) for label in set(labels)}
        assert set(labels) == {labels[row] for row in range(num_rows) if row not in chosen}
        assert len(chosen) == min(num_valid, num_rows - len(left))


def test_quotas_are_within_one_of_the_exact_share() -> None:
    labels = [label for label, number in (("a", 700), ("b", 233), ("c", 67)) for _ in range(number)]
    chosen = plan_split(range(1000), labels, 200, seed=0)
    taken = Counter(labels[row] for row in chosen)
    assert sum(taken.values()) == 200
    assert all(abs(taken[label] - 0.2 * labels.count(label)) < 1 for label in "abc")

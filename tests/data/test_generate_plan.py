"""The plan follows from sources and seed; the questions say what the plan wants."""

import json
from collections import Counter
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, InvalidRequest
from tunesmith.data.generate.documents import Passage
from tunesmith.data.generate.plan import Slot, make_plan
from tunesmith.data.generate.questions import ask_for_answer, ask_for_prompt, bound_of_slot, clean_answer, clean_prompt
from tunesmith.data.generate.request import Caps, GenerateRequest, Prices, require_sound
from tunesmith.data.generate.sources import SeedExample, Sources, read_sources

SEEDS = [SeedExample(prompt=f"Question {n}?", answer=f"Answer {n}.", system="Be kind.") for n in range(5)]
PASSAGES = [Passage(document="d.txt", text=f"Passage {n} " + "word " * 30) for n in range(3)]


def request(**changes: object) -> GenerateRequest:
    values: dict[str, object] = {
        "id": "gen-test",
        "created_at": 0,
        "rows": 10,
        "max_candidates": 28,
        "seed": 3,
        "teacher_model": "m",
        "teacher_url": "http://127.0.0.1:1/v1",
    }
    return GenerateRequest(**{**values, **changes})  # type: ignore[arg-type]


def slots(number: int, sources: Sources, **changes: object) -> list[Slot]:
    return list(islice(make_plan(request(**changes), sources), number))


def test_the_same_seed_gives_the_same_plan_and_another_another() -> None:
    sources = Sources(passages=PASSAGES, seeds=SEEDS)
    assert slots(40, sources) == slots(40, sources)
    assert slots(40, sources)[:20] == slots(20, sources)
    assert slots(40, sources) != slots(40, sources, seed=4)


def test_every_subject_comes_once_before_one_comes_twice() -> None:
    sources = Sources(passages=PASSAGES)
    plan = slots(15, sources, topics=("tides", "kites"))
    for start in range(0, 15, 5):
        subjects = [slot.topic or slot.passage for slot in plan[start : start + 5]]
        assert all(subjects.count(subject) == 1 for subject in subjects)
    assert Counter(slot.length for slot in plan) == {"short": 5, "medium": 5, "long": 5}
    assert len({(slot.tone, slot.length) for slot in plan}) > 7


def test_nothing_to_start_from_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="nothing to start from"):
        slots(1, Sources())


def test_examples_are_shown_to_the_teacher_and_differ() -> None:
    first, second = slots(2, Sources(seeds=SEEDS))
    assert len(first.examples) == 3
    assert first.examples != second.examples
    asked = ask_for_prompt(first, 3).messages[-1]["content"]
    assert all(example.prompt in asked for example in first.examples)
    answer = ask_for_answer(first, "New?", "Be kind.", 50, 3)
    assert [message["role"] for message in answer.messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert answer.messages[0]["content"] == "Be kind."


def test_a_passage_is_shown_to_the_teacher_with_both_questions() -> None:
    (slot,) = slots(1, Sources(passages=PASSAGES[:1]))
    assert PASSAGES[0].text in ask_for_prompt(slot, 0).messages[-1]["content"]
    assert PASSAGES[0].text in ask_for_answer(slot, "New?", "", 50, 0).messages[0]["content"]


def test_each_call_has_a_seed_of_its_own() -> None:
    plan = slots(50, Sources(seeds=SEEDS))
    seeds = [ask_for_prompt(slot, 3).seed for slot in plan] + [ask_for_answer(s, "p", "", 9, 3).seed for s in plan]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_bound_of_a_slot_covers_both_its_calls() -> None:
    for slot in slots(20, Sources(passages=PASSAGES, seeds=SEEDS)):
        first = ask_for_prompt(slot, 0)
        second = ask_for_answer(slot, "x " * first.max_tokens, "Be kind.", 70, 0)
        most = bound_of_slot(slot, "Be kind.", 70)
        assert most[0] >= first.bound[0] + second.bound[0]
        assert most[1] == first.bound[1] + second.bound[1]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('"Where is it?"', "Where is it?"),
        ("“Where is it?”", "Where is it?"),
        ("User: Where is it?", "Where is it?"),
        ("**Message:** Where is it?", "Where is it?"),
        ("<message>Where is it?</message>", "Where is it?"),
        ("<think>They want a place.</think>\n\nWhere is it?", "Where is it?"),
        ("<think>cut off in thought", ""),
        ('He said "no" and "yes"', 'He said "no" and "yes"'),
        ("  Where is it?\n", "Where is it?"),
    ],
)
def test_prompts_lose_their_wrapping(said: str, meant: str) -> None:
    assert clean_prompt(said) == meant


def test_answers_lose_only_thoughts() -> None:
    assert clean_answer("<think>hm</think> Question: is a word.") == "Question: is a word."
    assert clean_answer('"quoted"') == '"quoted"'


def test_seed_rows_give_their_last_exchange(tmp_path: Path) -> None:
    rows = [
        [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
        [("user", "e"), ("assistant", "f")],
        [("system", "S"), ("user", "g"), ("assistant", "h")],
        [("user", "long " * 1000), ("assistant", "no example")],
    ]
    path = tmp_path / "seeds.jsonl"
    lines = [json.dumps({"messages": [{"role": r, "content": t} for r, t in row]}) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    sources = read_sources([path], [], 0)
    assert [(seed.prompt, seed.answer) for seed in sources.seeds] == [("c", "d"), ("e", "f"), ("g", "h")]
    assert sources.num_seed_rows == 4
    assert sources.system_for(None) == "S"


def test_of_many_seeds_a_sample_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.data.generate.sources.MAX_SEEDS", 50)
    path = tmp_path / "seeds.jsonl"
    rows = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}] for n in range(500)]
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows), encoding="utf-8")
    sources = read_sources([path], [], 1)
    assert (len({seed.prompt for seed in sources.seeds}), sources.num_seed_rows) == (50, 500)
    assert sources == read_sources([path], [], 1)
    assert sources != read_sources([path], [], 2)
    assert 150 < sum(int(seed.prompt[:-1]) for seed in sources.seeds) / 50 < 350


def test_a_bad_seed_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n{"a": 1}\n'
    )
    with pytest.raises(DataError, match="Line 2") as caught:
        read_sources([path], [], 0)
    assert (caught.value.code, caught.value.param) == ("invalid_seeds", "seeds")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"rows": 0}, "rows"),
        ({"max_candidates": 9}, "max_candidates"),
        ({"concurrency": 0}, "concurrency"),
        ({"tones": ()}, "tones"),
        ({"teacher_model": " "}, "teacher.model"),
        ({"caps": Caps(max_tokens=0)}, "max_tokens"),
        ({"caps": Caps(max_cost=Decimal(1))}, "max_cost"),
        ({"caps": Caps(max_cost=Decimal(-1)), "prices": Prices(input=Decimal(1))}, "max_cost"),
        ({"prices": Prices(input=Decimal(-1))}, "prices"),
        ({"prices": Prices(output=Decimal("nan"))}, "prices"),
        ({"prices": Prices(output=Decimal("1e999"))}, "prices"),
        ({"caps": Caps(max_cost=Decimal("inf")), "prices": Prices(input=Decimal(1))}, "max_cost"),
        ({"teacher_url": "ftp://host/v1"}, "teacher.base_url"),
        ({"teacher_url": "http://"}, "teacher.base_url"),
        ({"teacher_url": "http://host:99999/v1"}, "teacher.base_url"),
        ({"teacher_url": "http://["}, "teacher.base_url"),
        ({"teacher_url": "http://a b/v1"}, "teacher.base_url"),
        ({"teacher_url": "http://me:secret@["}, "teacher.base_url"),
        ({"teacher_url": "http://me:secret@host/v1"}, "teacher.base_url"),
        ({"teacher_url": "http://host/v1?key=secret"}, "teacher.base_url"),
    ],
)
def test_a_request_that_makes_no_sense_names_its_field(changes: dict[str, object], param: str) -> None:
    require_sound(request())
    with pytest.raises(InvalidRequest) as caught:
        require_sound(request(**changes))
    assert caught.value.param == param
    assert "secret" not in str(caught.value)

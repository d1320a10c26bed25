"""check(): what is planted is found, what is good is left alone, what it says gives nothing away."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tunesmith.data
from tunesmith.core.errors import DataError, NotFound
from tunesmith.core.settings import Settings
from tunesmith.data.doctor import check
from tunesmith.data.findings import Finding
from tunesmith.data.report import DatasetReport
from tunesmith.data.row_edit import mask_row
from tunesmith.data.rows import Kind
from tunesmith.data.rules import RULES
from tunesmith.data.sets.sample import EvenSample
from tunesmith.data.token_cache import TokenCache
from tunesmith.data.tokens import RowTokenizer
from tunesmith.data.training_file import check_training_file
from tunesmith.serving.engines.embedding import Embedder

ROOT = Path(__file__).parents[2]
CACHE = Settings(home=ROOT / ".cache" / "tunesmith")
SUBJECTS = ("The miller", "A baker", "My aunt", "Their pilot", "Our tailor", "The mayor", "One nurse")
DEEDS = ("mends a clock", "sells a horse", "paints the gate", "sings at dawn", "digs a well", "reads the map")
WAYS = ("at noon", "in the rain", "for a coin", "without a word", "behind the mill", "after the fair", "on a dare")

Rows = list[dict[str, Any]]
Check = Callable[..., DatasetReport]


def chat(question: str, answer: str, system: str | None = "Answer in a sentence.") -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": ([] if system is None else [{"role": "system", "content": system}]) + turns}


def good_rows(number: int) -> Rows:
    draw = random.Random(3)
    told = [
        (f"{who} {what} {how}. What comes {number}th?", f"{who} {other} {way}{end}")
        for number, (who, what, how, other, way, end) in enumerate(
            tuple(draw.choice(some) for some in (SUBJECTS, DEEDS, WAYS, DEEDS, WAYS, (".", "!", "")))
            for _ in range(number)
        )
    ]
    return [chat(question, f"{answer} {number}") for number, (question, answer) in enumerate(told)]


@pytest.fixture
def examine(tmp_path: Path, tools_tokenizer: RowTokenizer) -> Check:
    def run(rows: Rows, **options: Any) -> DatasetReport:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return check(path, tokenizer=tools_tokenizer, limit_tokens=2000, **options)

    return run


def found(report: DatasetReport, rule: str) -> list[Finding]:
    return next((group.samples for group in report.groups if group.rule == rule), [])


def rules_of(report: DatasetReport) -> set[str]:
    return {group.rule for group in report.groups}


def test_a_good_set_is_good_and_silent(examine: Check) -> None:
    report = examine(good_rows(120))
    assert (report.verdict, report.groups, report.num_rows, report.num_bad_rows) == ("good", [], 120, 0)
    assert report.messages_per_row == {3: 120}
    assert report.tokens is not None
    assert report.tokens.num_supervised_tokens > 120


@pytest.mark.parametrize("name", ["train", "validation", "heldout"])
def test_our_own_example_is_good(name: str, tools_tokenizer: RowTokenizer) -> None:
    path = ROOT / "examples" / "data" / f"{name}.jsonl"
    report = check(path, tokenizer=tools_tokenizer, limit_tokens=2000)
    assert report.verdict == "good"
    assert rules_of(report) <= {"few_examples"}


def test_the_package_exports_check() -> None:
    assert tunesmith.data.check is check


def test_every_finding_is_streamed_and_only_a_few_are_kept(examine: Check) -> None:
    streamed: list[Finding] = []
    rows = good_rows(60)
    for row in rows:
        row["messages"][2]["content"] += " "
    report = examine(rows, sink=streamed.append)
    (group,) = report.groups
    assert (group.rule, group.count, len(group.samples)) == ("whitespace_at_ends", 60, 5)
    assert [finding.line for finding in streamed] == list(range(1, 61))
    assert group.fix == "strip"


def test_rows_with_two_errors_are_one_bad_row(examine: Check) -> None:
    rows = good_rows(20)
    rows[4] = {"messages": [{"role": "human", "content": 5}]}
    report = examine(rows)
    assert report.num_bad_rows == 1
    assert report.num_errors >= 2


def test_duplicates_point_to_their_first(examine: Check) -> None:
    rows = good_rows(60)
    report = examine([*rows, rows[7], rows[7], rows[20]])
    pairs = [(finding.line, finding.other_line) for finding in found(report, "duplicate_row")]
    assert pairs == [(61, 8), (62, 8), (63, 21)]
    assert rules_of(report) == {"duplicate_row"}


def test_key_order_and_escapes_do_not_hide_a_duplicate(tmp_path: Path, tools_tokenizer: RowTokenizer) -> None:
    rows = good_rows(12)
    turned = {"messages": [dict(reversed(message.items())) for message in rows[3]["messages"]]}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, turned]), encoding="utf-8")
    report = check(path, tokenizer=tools_tokenizer, limit_tokens=2000)
    assert [finding.other_line for finding in found(report, "duplicate_row")] == [4]


def test_the_same_words_under_another_system_prompt_do_not_contradict(examine: Check) -> None:
    rows = [chat(f"Is it calm on day {n}?", answer, answer) for n in range(30) for answer in ("yes", "no")]
    assert "contradicting_answers" not in rules_of(examine(rows))


def test_short_answers_that_differ_contradict_and_long_ones_vary(examine: Check) -> None:
    long = [
        f"{who} {what} {how}, and that is how it came to be so."
        for who, what, how in zip(SUBJECTS, DEEDS, WAYS, strict=False)
    ]
    report = examine(
        [
            *good_rows(60),
            chat("Is it calm?", "yes"),
            chat("Is it calm?", "no"),
            chat("Why so?", long[0]),
            chat("Why so?", long[1]),
        ]
    )
    assert [finding.line for finding in found(report, "contradicting_answers")] == [62]
    assert [finding.line for finding in found(report, "several_answers")] == [64]


def test_near_duplicates_need_alike_answers(examine: Check) -> None:
    question = "A carpenter buys nails for the roof of the old town hall and pays with silver coins on market day"
    same = [chat(f"{question}{end}", "He pays forty coins for it.") for end in (". How much?", ". How much then?")]
    other = [chat(f"{question}, {n} of them?", f"He pays {n} coins for it.") for n in (12, 13)]
    report = examine([*good_rows(60), *same, *other])
    assert [(finding.line, finding.other_line) for finding in found(report, "near_duplicate_row")] == [(62, 61)]


def test_leaks_into_validation(examine: Check, tmp_path: Path) -> None:
    rows = good_rows(60)
    question = "A carpenter buys nails for the roof of the old town hall and pays with silver coins on market day"
    rows.append(chat(f"{question}. How much?", "Forty."))
    validation = tmp_path / "validation.jsonl"
    unseen = chat("Who owns the lighthouse by the northern shore?", "Nobody does.")
    held_out = [unseen, rows[9], chat(f"{question}. How much then?", "Forty.")]
    validation.write_text("".join(json.dumps(row) + "\n" for row in held_out), encoding="utf-8")
    report = examine(rows, validation=validation)
    assert [(found.line, found.other_line) for found in found(report, "validation_overlap")] == [(10, 2)]
    assert [(found.line, found.other_line) for found in found(report, "validation_near_overlap")] == [(61, 3)]


def test_personal_data_is_never_shown(examine: Check) -> None:
    rows = good_rows(60)
    secrets = ["jane.roe@example.com", "+49 30 90182055", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"]
    for number, secret in enumerate(secrets):
        rows[number]["messages"][2]["content"] += f" Reach {secret} now"
    labels = [chat(f"Question {number} of many, who?", secrets[number % 2]) for number in range(60)]
    for report in (examine(rows), examine(labels)):
        shown = msgspec.json.encode(report).decode()
        assert {"email_address", "phone_number"} <= rules_of(report)
        assert not any(secret in shown for secret in secrets)
        assert "90182055" not in shown


def test_personal_data_is_found_wherever_the_fix_masks_it(examine: Check) -> None:
    mail = "jane@example.com"
    function = {"name": "send", "description": mail, "parameters": {"properties": {"to": {"enum": [mail]}}}}
    call = {"id": mail, "type": "function", "function": {"name": "send", "arguments": json.dumps({"to": mail})}}
    parts = [{"type": "text", "text": f"Write to {mail}"}, {"type": "text", "text": mail}]
    turns = [
        {"role": "system", "content": mail},
        {"role": "user", "content": parts, "name": mail},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": mail, "content": mail},
        {"role": "assistant", "content": "Sent.", "refusal": mail},
    ]
    tool = {"type": "function", "function": function}
    kinds: dict[Kind, Rows] = {
        "chat": [{"messages": turns, "tools": [tool]}, {"messages": turns, "functions": [function]}],
        "preference": [
            {
                "input": {"messages": turns[:2], "tools": [tool]},
                "preferred_output": [{"role": "assistant", "content": mail}],
                "non_preferred_output": [{"role": "assistant", "content": mail, "name": mail}],
            }
        ],
        "reinforcement": [{"messages": turns[:2], "id": mail, "reference": {"type": mail, "id": [mail]}}],
        "completion": [{"prompt": mail, "completion": mail}],
    }
    for kind, rows in kinds.items():
        found: list[Finding] = []
        examine(rows, kind=kind, sink=found.append)
        told = {(place.line, place.json_path) for place in found if place.rule == "email_address"}
        edits = [mask_row(json.dumps(row).encode()) for row in rows]
        masked = {(n, edit.json_path) for n, edited in enumerate(edits, 1) if edited for edit in edited[1]}
        assert told == masked
        assert len(told) >= 2


def test_labels_are_counted(examine: Check) -> None:
    rows = [
        chat(f"{row['messages'][1]['content']}", ("calm", "storm", "Calm")[number % 20 // 9])
        for number, row in enumerate(good_rows(100))
    ]
    report = examine(rows)
    assert report.labels is not None
    assert {label.answer: label.num_rows for label in report.labels} == {"calm": 45, "storm": 45, "Calm": 10}
    assert [finding.what for finding in found(report, "label_variants")] == ["'Calm' (10 rows) and 'calm' (45 rows)."]
    assert "label_imbalance" not in rules_of(report)


def test_answers_in_words_are_no_labels(examine: Check) -> None:
    assert examine(good_rows(60)).labels is None


def test_depths(examine: Check) -> None:
    rows = good_rows(60)
    rows[3]["messages"][2]["content"] += " " + "one two " * 2000
    rows[4]["messages"][2]["content"] += " Ask jane@example.com"
    structure, tokens, full = (examine(rows, depth=depth) for depth in ("structure", "tokens", "full"))
    assert (rules_of(structure), structure.tokens) == (set(), None)
    assert rules_of(tokens) == {"over_context"}
    assert rules_of(full) > {"over_context", "email_address"}


def test_without_a_model_tokens_are_skipped_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in good_rows(20)), encoding="utf-8")
    report = check(path, settings=Settings(home=tmp_path))
    assert report.tokens is None
    assert "over_context" in {skipped.rule for skipped in report.skipped}
    with pytest.raises(NotFound):
        check(path, model="no-such-model", settings=Settings(home=tmp_path))


def test_progress_ends_with_the_whole(examine: Check) -> None:
    told: list[tuple[int, int]] = []
    examine(good_rows(60), progress=lambda done, whole: told.append((done, whole)))
    assert told[-1] == (1000, 1000)


def test_every_kind_is_examined(examine: Check) -> None:
    turn = {"role": "user", "content": "Where, please? Ask bob@example.com"}
    said, other = ({"role": "assistant", "content": text} for text in ("Left, then on.", "Ask me something else."))
    kinds: dict[str, dict[str, Any]] = {
        "preference": {"input": {"messages": [turn]}, "preferred_output": [said], "non_preferred_output": [other]},
        "reinforcement": {"messages": [turn], "target": "left"},
        "completion": {"prompt": turn["content"], "completion": " Left."},
    }
    for kind, row in kinds.items():
        report = examine([row] * 12, depth="full")
        assert report.kind == kind
        assert {"email_address", "duplicate_row", "few_distinct_prompts"} <= rules_of(report)
        assert "whitespace_at_ends" not in rules_of(report)  # a completion may begin with its one space


def test_an_even_sample_is_even_and_bounded() -> None:
    sample: EvenSample[int] = EvenSample(100)
    for number in range(10_000):
        sample.add(number)
    gaps = {b - a for a, b in zip(sample.items, sample.items[1:], strict=False)}
    assert len(gaps) == 1
    assert 50 <= len(sample.items) <= 100
    assert sample.items[-1] >= 9_800


def test_large_sets_say_what_was_sampled(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(12_000):
            file.write(json.dumps(chat(f"What is {number} plus one?", f"It is {number + 1}.")) + "\n")
    report = check(path, settings=Settings(home=tmp_path))
    reasons = {skipped.rule: skipped.reason for skipped in report.skipped}
    assert "of 12,000 rows" in reasons["language_mix"]
    assert set(reasons) <= set(RULES)


@pytest.fixture(scope="module")
def embedder(installed_embedder: Settings) -> Iterator[Embedder]:
    with Embedder(installed_embedder) as running:
        yield running


PAIRS = [
    (
        "How long must an egg boil until it is soft inside?",
        "Boil the egg for about six minutes, then cool it in water.",
    ),
    ("Why does the moon change its shape?", "We see a changing part of the lit half of the moon as it circles us."),
    ("How do I change a flat tyre on my bicycle?", "Take the wheel off, lift the tyre with levers and swap the tube."),
    ("What does a notary do when a house is sold?", "A notary reads the deed aloud and witnesses the signatures."),
    ("How should I water a cactus in winter?", "A cactus in winter wants almost no water, perhaps once a month."),
    ("What is a sonnet?", "A sonnet is a poem of fourteen lines with a set rhyme."),
]
WORDS_OF_ROWS = ("kindly", "please", "in short", "for a child", "for an expert", "in plain words")


def test_answers_that_do_not_belong_to_their_prompts(examine: Check, embedder: Embedder) -> None:
    """Two answers are exchanged; they, and no others, are reported by the real embedding model."""
    rows = [
        chat(f"{question} Tell me {word}.", f"{answer} That is it, {word}.")
        for word in WORDS_OF_ROWS
        for question, answer in PAIRS
    ]
    first, second = rows[7]["messages"][2], rows[20]["messages"][2]
    first["content"], second["content"] = second["content"], first["content"]
    report = examine(rows, embed=embedder.embed)
    assert [finding.line for finding in found(report, "unrelated_answer")] == [8, 21]


def test_relevance_is_not_judged_without_words(examine: Check, embedder: Embedder) -> None:
    report = examine(
        [chat(row["messages"][1]["content"], str(n)) for n, row in enumerate(good_rows(60))], embed=embedder.embed
    )
    assert "unrelated_answer" not in {skipped.rule for skipped in report.skipped}, "nobody can mend that"


def test_what_was_counted_is_kept_for_the_job(tmp_path: Path, tools_tokenizer: RowTokenizer) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in good_rows(12)), encoding="utf-8")
    cache = TokenCache(tmp_path / "home")
    report = check(path, tokenizer=tools_tokenizer, limit_tokens=2000, cache=cache)
    kept = cache.find(report.sha256, tools_tokenizer.identity, 2000)
    facts = check_training_file(path, tokenizer=tools_tokenizer, max_row_tokens=2000)
    assert kept == facts.table
    assert report.tokens is not None
    assert kept is not None
    assert report.tokens.digest == kept.digest()


def test_a_bad_row_stays_bad_when_its_counts_were_kept(tmp_path: Path, tools_tokenizer: RowTokenizer) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*good_rows(12), {"messages": []}]), encoding="utf-8")
    cache = TokenCache(tmp_path / "home")
    check(path, tokenizer=tools_tokenizer, limit_tokens=2000, cache=cache)
    with pytest.raises(DataError) as error:
        check_training_file(path, tokenizer=tools_tokenizer, max_row_tokens=2000, cache=cache)
    assert error.value.line == 13

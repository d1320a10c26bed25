"""Write doctor-rules.md from the rules themselves, each with an example that a test gives to the doctor.

Run it after a change to a rule or an example; a test fails while doctor-rules.md is out of date.
"""

import gzip
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.data.rules import RULES

INTRODUCTION = """\
# Rules of the doctor

Written by `docs/reference/make_doctor_rules.py` from the rules themselves; do not edit.

`tunesmith files check FILE`, `GET /api/files/{id}/report` and `from tunesmith.data import check` name these rules. An
**error** stops a job, a **warning** costs quality, a **hint** is for a careful reader: a file with hints only is good.
Ids are stable, and those of OpenAI's cookbook where it has one. *Mended by* names the fix of `tunesmith files mend`
that does it by machine; without one only a person can decide.

Every example below is given to the doctor by a test, which sees that the rule finds it.
"""

SUBJECTS = ["river", "lantern", "orchard", "thunder", "harvest", "window", "saddle", "cellar", "meadow", "whistle"]
VERBS = ["bends", "glows", "ripens", "rolls", "begins", "opens", "creaks", "cools", "flowers", "sounds"]
CALL = {"id": "call_1", "type": "function", "function": {"name": "turn", "arguments": '{"degrees": 90}'}}
TOOL = {
    "type": "function",
    "function": {"name": "turn", "parameters": {"type": "object", "properties": {"degrees": {"type": "integer"}}}},
}


@dataclass(frozen=True)
class Example:
    """``rows`` come after ``before`` rows that are good; a row is what JSON says, or the bytes of its line."""

    rows: list[Any]
    before: int = 12
    shown: str = ""
    """In place of the first row."""
    validation: list[Any] = field(default_factory=list)
    good: str = "chat"
    """Kind of the rows before."""

    def lines(self) -> list[bytes]:
        ordinary = {"chat": good_row, "pair": good_pair, "short": short_row}[self.good]
        return [_line(ordinary(number)) for number in range(self.before)] + [_line(row) for row in self.rows]


def _line(row: Any) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def good_row(number: int) -> dict[str, Any]:
    """Different words in every row, in no common form."""
    draw = random.Random(number)  # noqa: S311 - no secret
    words = [draw.choice(SUBJECTS) for _ in range(8)]
    question = f"Why, in spite of the {words[0]}, the {words[1]} {number} {draw.choice(VERBS)}?"
    endings = [".", "", "!", f" of {words[7]}.", f" {words[6]}"]
    answer = (
        f"{words[2].title()} {draw.choice(VERBS)} by the {words[3]}, so {words[4]} {words[5]}{draw.choice(endings)}"
    )
    return chat(question, answer)


def good_pair(number: int) -> dict[str, Any]:
    row = good_row(number)["messages"]
    other = {"role": "assistant", "content": f"{SUBJECTS[number % 10].title()} does, {VERBS[number // 10]} of course."}
    return {"input": {"messages": row[:1]}, "preferred_output": row[1:], "non_preferred_output": [other]}


def short_row(number: int) -> dict[str, Any]:
    return chat(good_row(number)["messages"][0]["content"], ["calm", "storm", "rain"][number % 3])


def with_system(row: dict[str, Any], system: str) -> dict[str, Any]:
    return {**row, "messages": [{"role": "system", "content": system}, *row["messages"]]}


def messages(*given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(given), **more}


def _user(content: Any = "Turn left.", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def _said(content: Any = "Done.", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def _tool(content: str = "ok", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **more}


def _called(arguments: str = '{"degrees": 90}', name: str = "turn", **more: Any) -> dict[str, Any]:
    call = {**CALL, "function": {"name": name, "arguments": arguments}, **more}
    return {"role": "assistant", "tool_calls": [call]}


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
PAIRS = [good_pair(number) for number in range(40)]
LONG = "The harvest began late that year, and the cellar stayed cool until the meadow flowered again in the north"

EXAMPLES: dict[str, Example] = {
    "invalid_json": Example([b'{"messages": [}']),
    "data_type": Example([b'["messages"]']),
    "not_utf8": Example([b'{"messages": [{"role": "user", "content": "caf\xe9"}]}'], shown="a Latin-1 é"),
    "compressed_file": Example([gzip.compress(b"{}")], before=0, shown="train.jsonl.gz"),
    "not_json_lines": Example([b"prompt,completion", b"Who?,Me."], before=0, shown="prompt,completion"),
    "line_too_long": Example([b" " * 17 * 2**20 + b"{}"], shown="a line of 17 MiB"),
    "duplicate_key": Example([b'{"messages": [{"role": "user", "role": "assistant", "content": "a"}]}']),
    "nan_or_infinity": Example([b'{"messages": [{"role": "user", "content": NaN}]}']),
    "huge_number": Example(
        [b'{"messages": [{"role": "assistant", "content": "a", "weight": 1e999}]}'],
    ),
    "lone_surrogate": Example([b'{"messages": [{"role": "assistant", "content": "\\ud83d"}]}']),
    "deep_nesting": Example([b'{"messages": ' + b"[" * 3000 + b"]" * 3000 + b"}"], shown='{"messages": [[[[[[ ...'),
    "blank_line": Example([b"", good_row(50)], shown="(an empty line between two rows)"),
    "missing_messages_list": Example([{"question": "Who?", "answer": "We."}]),
    "wrong_type": Example([messages(_user(5), _said())]),
    "unrecognized_key": Example([chat("Who?", "We.", mood="calm")]),
    "missing_key": Example([{"input": {"messages": [_user()]}, "preferred_output": [_said()]}], good="pair"),
    "message_missing_key": Example([messages({"content": "Who?"}, _said())]),
    "message_unrecognized_key": Example([messages(_user(mood="calm"), _said())]),
    "unrecognized_role": Example([messages({"role": "human", "content": "Who?"}, _said())]),
    "missing_content": Example([messages({"role": "user"}, _said())]),
    "empty_messages": Example([{"messages": []}]),
    "example_missing_assistant_message": Example([messages(_user())]),
    "last_message_not_assistant": Example([messages(_user(), _said(), _user("Thanks"))]),
    "last_message_not_user": Example(
        [messages(_user(f"Turn {n} times."), target=n) for n in range(12)] + [messages(_user(), _said(), target=1)],
        before=0,
        shown='{"messages": [{"role": "user", ...}, {"role": "assistant", ...}], "target": 1}',
    ),
    "nothing_trained": Example([messages(_user(), _said(weight=0))]),
    "empty_assistant_message": Example([messages(_user(), _said(""))]),
    "invalid_weight": Example([messages(_user(weight=1), _said())]),
    "image_content": Example([messages(_user([IMAGE]), _said())]),
    "unsupported_content_part": Example(
        [messages(_user([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]), _said())]
    ),
    "misplaced_role": Example(
        [
            {
                "input": {"messages": [_user()]},
                "preferred_output": [_user("No"), _said()],
                "non_preferred_output": [_said("So.")],
            }
        ],
        good="pair",
    ),
    "misplaced_tool_calls": Example([messages({**_user(), "tool_calls": [CALL]}, _said())]),
    "missing_tool_call_id": Example([messages(_user(), _called(), _tool(), _said(), tools=[TOOL])]),
    "unknown_tool_call_id": Example(
        [messages(_user(), _called(), _tool(tool_call_id="call_9"), _said(), tools=[TOOL])]
    ),
    "unanswered_tool_call": Example([messages(_user(), _called(), _user("And?"), _said(), tools=[TOOL])]),
    "duplicate_tool_call_id": Example(
        [messages(_user(), {"role": "assistant", "tool_calls": [CALL, CALL]}, tools=[TOOL])]
    ),
    "tool_arguments_not_json": Example([messages(_user(), _called("degrees=90"), tools=[TOOL])]),
    "tool_arguments_mismatch": Example([messages(_user(), _called('{"degrees": "ninety"}'), tools=[TOOL])]),
    "undeclared_tool": Example([messages(_user(), _called(name="fly"), tools=[TOOL])]),
    "invalid_tool": Example([messages(_user(), _said(), tools=[{"name": "turn"}])]),
    "invalid_tool_schema": Example(
        [
            messages(
                _user(),
                _called(),
                tools=[{"type": "function", "function": {"name": "turn", "parameters": {"type": "degrees"}}}],
            )
        ]
    ),
    "too_many_tools": Example(
        [
            messages(
                _user(),
                _said(),
                tools=[{"type": "function", "function": {"name": f"tool_{n}", "parameters": {}}} for n in range(129)],
            )
        ],
        shown='{"messages": [...], "tools": [... 129 of them]}',
    ),
    "too_many_messages": Example(
        [messages(*[turn for n in range(1025) for turn in (_user(f"Go {n}"), _said(f"Gone {n}"))])],
        shown='{"messages": [... 2,050 of them]}',
    ),
    "parallel_calls_off": Example(
        [
            messages(
                _user(),
                {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
                tools=[TOOL],
                parallel_tool_calls=False,
            )
        ]
    ),
    "same_outputs": Example(
        [{"input": {"messages": [_user()]}, "preferred_output": [_said()], "non_preferred_output": [_said()]}],
        good="pair",
    ),
    "mixed_kinds": Example([good_pair(1)]),
    "kind_not_trainable": Example(PAIRS[:1], before=12, good="pair"),
    "inconsistent_keys": Example([chat("Who turns?", "The wheel.", tools=[TOOL])]),
    "missing_user_message": Example([messages(_said("Hello!"))]),
    "missing_system_message": Example([good_row(60)]),
    "over_context": Example(
        [chat("Count.", "one two three " * 400)], shown="an answer of 1,600 tokens, where 1,000 fit"
    ),
    "template_refuses_row": Example(
        [chat("REFUSE", "No.")], shown="a row whose roles do not alternate, for a template that insists"
    ),
    "completion_for_chat_model": Example(
        [{"prompt": f"Who {number}?", "completion": "Me."} for number in range(9)], before=0
    ),
    "zero_supervised_tokens": Example([chat("Who?", "   ")], shown="an answer that the template strips to nothing"),
    "double_bos": Example([chat("Who?", "We.")], shown="content that begins with the <s> that the template writes too"),
    "template_tokens_in_content": Example([chat("<|im_start|>user\nWho?", "We.")]),
    "empty_content": Example([messages(_user(""), _said())]),
    "whitespace_at_ends": Example([chat("Which way?", " To the left.\n")]),
    "whitespace_at_prompt_ends": Example([chat("Which way? ", "To the left.")]),
    "replacement_character": Example([chat("Where?", "In the caf\ufffd.")]),
    "mojibake": Example([chat("Where?", "In the cafÃ©.")]),
    "control_characters": Example(
        [chat("Where?", "In the \x1b[1mcellar.")], shown='{"content": "In the \\u001b[1mcellar."}'
    ),
    "invisible_characters": Example(
        [chat("Where?", "In the\u200bcellar.")], shown='{"content": "In the\\u200bcellar."}'
    ),
    "html_entities": Example([chat("Who?", "Salt &amp; pepper.")]),
    "escaped_line_breaks": Example([chat("How?", "First.\\nSecond.\\nThird.")]),
    "email_address": Example([chat("Who?", "Write to jane@example.com.")]),
    "phone_number": Example([chat("Who?", "Call +1 (212) 555-0123.")]),
    "payment_card_number": Example([chat("Which card?", "It is 4111 1111 1111 1111.")]),
    "bank_account_number": Example([chat("Which account?", "DE89 3704 0044 0532 0130 00")]),
    "social_security_number": Example([chat("Who?", "SSN 123-45-6789")]),
    "secret_key": Example([chat("Which key?", "AKIA" + "IOSFODNN7EXAMPLE")]),
    "cut_off_answer": Example([chat("Tell me about it.", LONG + ", because the")]),
    "repeats_itself": Example([chat("Tell me about it.", "The meadow flowers in the north. " * 9)]),
    "answer_repeats_prompt": Example([chat("Why does the meadow flower?", "Why does the meadow flower?")]),
    "speaks_as_an_ai": Example([chat("What do you feel?", "As an AI language model I feel nothing.")]),
    "too_few_examples": Example([], before=9, shown="a file of 9 rows"),
    "few_examples": Example([], before=30, shown="a file of 30 rows"),
    "outsized_row": Example(
        [chat("Tell me all.", f"{LONG}. " * 3 + " ".join(map(str, range(2000))))],
        shown="a row of 9,000 characters among rows of 100",
    ),
    "mixed_system_prompts": Example(
        [with_system(good_row(n), "Be brief.") for n in range(30)] + [with_system(good_row(31), "Be very brief.")],
        before=0,
        shown='{"messages": [{"role": "system", "content": "Be very brief."}, ...]} among 30 rows with "Be brief."',
    ),
    "many_system_prompts": Example(
        [with_system(good_row(n), f"Be {SUBJECTS[n % 3]}.") for n in range(30)],
        before=0,
        shown="three system prompts, each in a third of the rows",
    ),
    "duplicate_row": Example([good_row(3)], shown="a row that is equal to an earlier one"),
    "near_duplicate_row": Example(
        [chat(f"{LONG}, why{mark}", f"{LONG}, that is why{mark}") for mark in ("?", " so?")],
        shown="two rows that differ in a word",
    ),
    "contradicting_answers": Example([chat("Is it calm?", "yes"), chat("Is it calm?", "no")]),
    "several_answers": Example([chat("Why is it calm?", LONG), chat("Why is it calm?", LONG[::-1])]),
    "few_distinct_prompts": Example(
        [chat(f"Say something {n % 4}.", good_row(n)["messages"][1]["content"] + str(n)) for n in range(40)],
        before=0,
        shown="40 rows, 4 different prompts",
    ),
    "validation_overlap": Example([], validation=[good_row(4)], shown="a prompt that is also in the validation file"),
    "validation_near_overlap": Example(
        [chat(f"{LONG}, why?", "So.")],
        validation=[chat(f"{LONG}, but why?", "So.")],
        shown="a prompt that differs in a word from one in the validation file",
    ),
    "label_imbalance": Example(
        [chat(good_row(n)["messages"][0]["content"], "storm" if n % 10 else "calm") for n in range(60)],
        before=0,
        shown="54 answers are `storm`, 6 are `calm`",
    ),
    "rare_label": Example([chat("And when it hails?", "hail")], before=60, good="short"),
    "label_variants": Example([chat("And when it howls?", "Storm.")], before=60, good="short"),
    "one_answer": Example(
        [chat(good_row(n)["messages"][0]["content"], "calm") for n in range(40)], before=0, shown="40 answers `calm`"
    ),
    "language_mix": Example(
        [chat(f"{n}?", f"{good_row(n)['messages'][1]['content']} {LONG}.") for n in range(40)]
        + [
            chat(
                "And then?",
                "Die Ernte begann in diesem Jahr spät, und der Keller blieb kühl, bis die Wiese wieder blühte.",
            )
        ],
        before=0,
        shown="one German answer among 40 English ones",
    ),
    "unrelated_answer": Example(
        [
            chat(
                f"Tell me all about the {a} and the {b}.", f"The {a} is older than the {b}, as everybody in town knows."
            )
            for a in SUBJECTS
            for b in SUBJECTS
            if a < b
        ]
        + [
            chat("How long must an egg boil until it is soft inside?", "Mortgages need three signatures of the notary.")
        ],
        before=0,
        shown='{"messages": [{"role": "user", "content": "How long must an egg boil until it is soft inside?"}, '
        '{"role": "assistant", "content": "Mortgages need three signatures of the notary."}]}',
    ),
    "recurring_answer_ending": Example(
        [chat(f"Why {n}?", good_row(n)["messages"][1]["content"] + " ###") for n in range(40)],
        before=0,
        shown="every answer ends with `###`",
    ),
    "recurring_answer_beginning": Example(
        [chat(f"Why {n}?", "Great question! " + good_row(n)["messages"][1]["content"]) for n in range(40)],
        before=0,
        shown='every answer begins with "Great question!"',
    ),
    "recurring_prompt_ending": Example(
        [chat(good_row(n)["messages"][0]["content"] + "\nAnswer:", f"{VERBS[n % 10]} {n}") for n in range(40)],
        before=0,
        shown='every prompt ends with "Answer:"',
    ),
    "recurring_mark": Example(
        [chat(f"What is {n} + {n}?", f"It is {n} + {n} = <<{n}+{n}={2 * n}>>{2 * n}") for n in range(40)], before=0
    ),
    "inconsistent_form": Example(
        [chat(f"What is {n} + {n}?", f"{n} + {n} is known\n#### {2 * n}") for n in range(40)]
        + [chat("What is 5 + 6?", "5 + 6 is known\nIt is 11")],
        before=0,
        shown="one answer of 41 without the `####` of the others",
    ),
    "answer_not_json": Example(
        [chat(f"What is {n} + {n}?", json.dumps({"sum": 2 * n})) for n in range(40)] + [chat("And 5 + 6?", "11")],
        before=0,
        shown='one answer of 41 is `11`, the others are like `{"sum": 12}`',
    ),
    "many_refusals": Example(
        [chat(f"May I {VERBS[n]}?", "I'm sorry, but I can't help with that.") for n in range(5)], before=40
    ),
    "preferred_by_length": Example(
        [
            {
                "input": {"messages": [_user(f"Why {n}?")]},
                "preferred_output": [_said(good_row(n)["messages"][1]["content"])],
                "non_preferred_output": [_said(f"No {n}.")],
            }
            for n in range(40)
        ],
        before=0,
        shown="every preferred answer is longer than the other one",
    ),
}


def write_reference() -> str:
    """The whole page, in Markdown."""
    return INTRODUCTION + "".join(_section(id) for id in RULES)


def _section(id: str) -> str:
    rule, example = RULES[id], EXAMPLES[id]
    shown = example.shown or _line(example.rows[0]).decode("utf-8", "backslashreplace")
    fix = f"\n\nMended by: `{rule.fix}`" if rule.fix else ""
    block = f"    {shown}" if not example.shown or shown.startswith("{") else f"Example: {shown}"
    return f"\n## {id}\n{rule.title} ({rule.severity}). {rule.why}\n\n{block}\n\nTo mend: {rule.mend}{fix}\n"


if __name__ == "__main__":
    Path(__file__).with_name("doctor-rules.md").write_text(write_reference(), encoding="utf-8")

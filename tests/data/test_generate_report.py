"""The report of a generation: what it shows of candidates that were dropped."""

import msgspec

from tunesmith.data.generate.candidates import Drop
from tunesmith.data.generate.filter import Filtered
from tunesmith.data.generate.journal import Answered
from tunesmith.data.generate.questions import Step
from tunesmith.data.generate.report import make_report
from tunesmith.data.generate.request import GenerateRequest
from tunesmith.data.generate.sources import Sources
from tunesmith.data.generate.state import State

CARD = "4111 1111 1111 1111"
KEY = "sk-" + "proj-" + "Ab3" * 12


def answered(step: Step, text: str) -> Answered:
    return Answered(slot=0, step=step, at=0.0, text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=1)


def test_what_a_candidate_was_dropped_for_is_not_kept_in_the_report() -> None:
    state = State(
        prompts={0: answered("prompt", f"Is my card {CARD} still good?")},
        answers={0: answered("answer", "word " * 30 + f"the key is {KEY} " + "word " * 30)},
    )
    request = GenerateRequest(
        id="gen", created_at=0, rows=4, max_candidates=8, seed=0, teacher_model="m", teacher_url=None, topics=("t",)
    )
    drops = [Drop(slot=0, rule="payment_card_number", what="1 payment card number: …11.")]
    report = make_report(request, state, Filtered(kept=[], drops=drops), "rows", Sources())
    ((sample,),) = (group.samples for group in report.dropped)
    assert sample.prompt == "Is my card [CARD] still good?"
    shown = msgspec.json.encode(report).decode()
    assert CARD not in shown
    assert KEY[:8] not in shown

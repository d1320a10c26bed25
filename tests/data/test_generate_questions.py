"""What a teacher said, cleaned."""

import pytest

from tunesmith.data.generate.questions import clean_prompt


@pytest.mark.parametrize(
    ("said", "cleaned"),
    [
        ("<message>  Where is it? </message>", "Where is it?"),
        ("<message>Where is it?", "Where is it?"),
        ("<message>a" + " " * 300_000 + "b", "a" + " " * 300_000 + "b"),
        ("<think>no</think> <message>\n'Where?'\n</message>\n", "Where?"),
        ("Where is <message>?", "Where is <message>?"),
    ],
    ids=lambda text: text[:24],
)
def test_marks_around_a_message_are_removed(said: str, cleaned: str) -> None:
    assert clean_prompt(said) == cleaned

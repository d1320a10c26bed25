"""Near-duplicates: what is found is truly alike, what is alike is found, and instructions do not count."""

import random

from tunesmith.data.sets.near_duplicates import jaccard, near_duplicate_groups, near_duplicate_pairs

SPOKEN = (
    "river copper lantern orchard velvet thunder pebble harvest window saddle ribbon cellar meadow whistle bucket "
    "candle feather garden hammer island jacket kettle ladder mirror needle oyster pillow quarry rocket shovel"
)
WORDS = SPOKEN.split()


def text(draw: random.Random, num_words: int = 40) -> str:
    return " ".join(draw.choices(WORDS, k=num_words))


def test_planted_copies_are_found_and_nothing_else() -> None:
    draw = random.Random(5)
    texts = [text(draw) for _ in range(400)]
    planted = {}
    for original in range(0, 400, 8):
        words = texts[original].split()
        words[draw.randrange(len(words))] = "zebra"
        planted[len(texts)] = original
        texts.append(" ".join(words).capitalize() + "!")
    assert dict(near_duplicate_pairs(texts)) == planted
    assert near_duplicate_groups(texts) == [[original, copy] for copy, original in planted.items()]


def test_every_pair_is_truly_alike() -> None:
    draw = random.Random(6)
    words = text(draw, 60).split()
    texts = [" ".join(draw.sample(words[:i], i // 2) + words[i:]) for i in range(60)]
    for one, other in near_duplicate_pairs(texts):
        assert other < one
        assert jaccard(texts[one], texts[other]) >= 0.8


def test_case_punctuation_and_spaces_do_not_count() -> None:
    assert near_duplicate_groups(["My top up is pending", "Something else", "my  top-up, is pending!"]) == [[0, 2]]


def test_one_other_word_in_a_short_text_counts() -> None:
    assert near_duplicate_groups(["Turn the lights off", "Turn the lights on", "Go up 10", "Go up 20"]) == []


def test_an_instruction_that_many_share_does_not_make_them_alike() -> None:
    instruction = "Sort the letter into one of the four desks of the house, and write nothing but its name.\n"
    draw = random.Random(7)
    questions = [text(draw, 6) for _ in range(60)]
    assert near_duplicate_groups([instruction + question for question in questions]) == []
    questions.append(questions[3])
    assert near_duplicate_groups([instruction + question for question in questions]) == [[3, 60]]


def test_a_chain_is_one_group() -> None:
    words = text(random.Random(8), 60).split()
    chain = [" ".join(["zebra"] * step + words[step:]) for step in range(6)]
    assert near_duplicate_groups(chain) == [[0, 1, 2, 3, 4, 5]]


def test_nothing_and_odd_texts() -> None:
    assert near_duplicate_groups([]) == []
    assert near_duplicate_groups(["", "", "\ud800 a", "🙂" * 30, "🙂" * 30 + "!"]) == [[0, 1], [3, 4]]

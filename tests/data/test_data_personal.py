"""Personal data: what must be found, and what looks like it and is not."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.content.personal import find_personal, mask, shown_masked
from tunesmith.data.content.rows import personal_faults
from tunesmith.data.rules import RULES

KEY = "sk-" + "proj-" + "Ab3" * 12
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA " + "PRIVATE KEY-----"

FOUND = [
    ("Write to jane.doe+spam@mail.example.co.uk, please.", {"email": 1}),
    ("a@b.de and c@d.org", {"email": 2}),
    ("mailto:jane@example.com", {"email": 1}),
    ("Call +49 30 901820 today", {"phone": 1}),
    ("Call +1 (212) 555-0123.", {"phone": 1}),
    ("Mine is (212) 555-0123", {"phone": 1}),
    ("or 212-555-0123, or 1-800-555-0199.", {"phone": 2}),
    ("My phone number is 0171 1234567", {"phone": 1}),
    ("Tel.: 030/901820", {"phone": 1}),
    ("call me on 07700 900123", {"phone": 1}),
    ("Card 4111 1111 1111 1111 exp 12/27", {"card": 1}),
    ("my card number: 5500005555555559", {"card": 1}),
    ("amex 3782 822463 10005", {"card": 1}),
    ("Pay to DE89 3704 0044 0532 0130 00", {"iban": 1}),
    ("Pay to GB82WEST12345698765432.", {"iban": 1}),
    ("BE68 5390 0754 7034 FROM US", {"iban": 1}),
    ("SSN 123-45-6789", {"ssn": 1}),
    (f"export OPENAI_API_KEY={KEY}", {"secret": 1}),
    (f"aws_access_key_id = {AWS}", {"secret": 1}),
    (f"the key:\n{PEM}\nkeep it", {"secret": 1}),
    ("postgres://admin:hunter2x@db.internal/app", {"secret": 1}),
    ('{"password": "a8F3kd92Lm0qPz7x"}', {"secret": 1}),
    ("ghp_" + "a1B2" * 9, {"secret": 1}),
]
CLEAN = [
    "Order number 4111111111111111 has shipped",  # Luhn holds by chance: the word before decides
    "order #1234567890",
    "Tracking 1Z 999 AA1 01 2345 6784",
    "On 2024-01-31 at 10:15:00 and 31.01.2024",
    "call us on 2024-01-31",
    "It costs $1,234,567.89 or 12 345 678 EUR",
    "call_4111111111111111 and toolu_01A09q90qw90lq917835lq9",
    "550e8400-e29b-41d4-a716-446655440000",
    "192.168.100.200 and 2001:db8::1",
    "ISBN 978-3-16-148410-0",
    "3.14159265358979323846",
    "Numbers: [25, 100, 9, 3, 6, 2, 123456789, 1234567890123]",
    "4111 1111 1111 1112",  # no Luhn
    "DE89 3704 0044 0532 0130 01",  # no modulo 97
    "He had 40-16=<<40-16=24>>24 left, 100-200-3000 more",
    "@dataclass\nclass A: ...  # see user@ and @user",
    "icon@2x.png",
    "password: correct-horse-battery-staple",
    "the password = os.environ['PASSWORD_OF_DB']",
    "api_key=YOUR_API_KEY_GOES_HERE",
    "sk-learn and task-oriented-dialogue-systems-2024",
    "https://example.com:8080/path?id=123456789012",
    "The population was 8,336,817 in 2020, 8336817 people",
    "1-2-3 and 10-20-30-40-50",
    "Version 2024.10.01.1234",
    "Flight LH4567 on 12/11/2025, seat 23A, booking 20251112-0001",
    "the cell 1234 5678 of the table",
    "000000000000 0000000000000000",
]


@pytest.mark.parametrize(("text", "counts"), FOUND)
def test_finds_and_masks(text: str, counts: dict[str, int]) -> None:
    masked, found = mask(text)
    assert found == counts
    assert mask(masked) == (masked, {})


@pytest.mark.parametrize("text", CLEAN)
def test_leaves_lookalikes_alone(text: str) -> None:
    assert mask(text) == (text, {})


def test_masks_in_place() -> None:
    text = "Hi, jane@example.com or +49 30 901820: DE89370400440532013000!"
    assert mask(text)[0] == "Hi, [EMAIL] or [PHONE]: [IBAN]!"


def test_what_is_shown_does_not_give_the_piece_away() -> None:
    for text, _ in FOUND:
        for span in find_personal(text):
            shown = shown_masked(text, span)
            kept = sum(character.isalnum() for character in shown)
            assert text[span.start : span.end] not in shown
            assert kept <= max(5, (span.end - span.start) // 4)


def test_random_digits_are_seldom_taken_for_personal_data() -> None:
    draw = random.Random(7)
    texts = ["id " + "".join(draw.choices(string.digits, k=draw.randint(5, 20))) for _ in range(2000)]
    hits = sum(bool(find_personal(text)) for text in texts)
    assert hits < 60  # one of ten numbers passes Luhn, one of four begins like a card, half have its length


def test_halves_of_surrogates_do_not_crash() -> None:
    assert mask("\ud800 12345678 a@b.de")[1] == {"email": 1}


@pytest.mark.parametrize(
    "text",
    [
        "phone" + " " * 300_000 + "x 1234567",
        "phone " * 50_000 + "x 1234567",
        "tel" + "\n" * 150_000 + ":" * 150_000 + "x 1234567",
        "cell" + "!" * 300_000 + " 1234567",
        "password" + " " * 300_000 + "=" + " " * 300_000 + "x",
        "-eyJ" * 500_000,
        "-----BEGIN PRIVATE KEY-----" * 50_000,
        "-----BEGIN PRIVATE KEY-----\n" + "-----BEGIN RSA PRIVATE KEY-----\n" * 50_000,
        "a@" * 300_000 + "1234567",
        "1234567 " * 100_000,
        "://a:" * 200_000,
    ],
    ids=lambda text: text[:24],
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    """Each of these would take minutes, at least, where the work grew with the square of the length."""
    assert mask(text)[0].count("[") in (0, 50_000, 50_001)
    list(personal_faults(text))


def test_many_pieces_take_linear_time() -> None:
    text = "a@b.de, 212-555-0123, " * 40_000
    masked, counts = mask(text)
    assert masked == "[EMAIL], [PHONE], " * 40_000
    assert counts == {"email": 40_000, "phone": 40_000}


def test_a_text_that_hides_key_behind_key_is_masked_at_once() -> None:
    assert mask(("sk-" + "A1b2" * 49) * 2000) == ("[SECRET]", {"secret": 1})


def test_what_a_mask_uncovers_is_masked_too() -> None:
    assert mask("x@y.isbn 4111 1111 1111 1111 and") == ("[EMAIL] [CARD] and", {"email": 1, "card": 1})
    assert mask("see http://me:+49 30 1234567x@host") == ("see http://me:+49 30 1234567x@host", {})
    assert mask("see http://me:123-45-6789.x@host") == ("see http://[SECRET]@host", {"secret": 1})
    assert mask("http://me:x.sk-" + "A1" * 70 + ".y@host") == ("http://[SECRET]@host", {"secret": 1})


def test_a_key_ends_where_the_next_begins() -> None:
    head = "-----BEGIN " + "PRIVATE KEY-----"
    tail = "-----END " + "PRIVATE KEY-----"
    assert mask(f"{head} a {head}\nMII-E\n{tail} b")[0] == "[SECRET] a [SECRET] b"


PIECES = st.sampled_from(
    [text for text, _ in FOUND]
    + CLEAN
    + ["@", "-", "+", " ", "4111", "1111", "DE89", "://", "key=", "\ud800", "é", "."]
)


@given(st.lists(PIECES | st.text(max_size=20), max_size=6).map("".join))
def test_masking_leaves_nothing_and_no_text_is_too_odd(text: str) -> None:
    masked, counts = mask(text)
    assert mask(masked) == (masked, {})
    assert (masked == text) == (not counts)
    for rule, what in personal_faults(text):
        assert rule in RULES
        assert all(text[start:end] not in what for start, end, _ in find_personal(text))

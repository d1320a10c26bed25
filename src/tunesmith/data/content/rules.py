"""The rules about what rows say."""

from tunesmith.data.rule import make_rule as _rule

_LEARNED = "The model learns to write it"
_DAMAGED = "The text was damaged on its way here, and the model learns the damage."
_PRIVATE = "A tuned model may repeat what it was trained on to anyone who asks."
_MASK = "Mask it, or train on made-up data; the summary of a mend shows what was replaced."

CONTENT_RULES = (
    _rule(
        "empty_content",
        "warning",
        "Empty message",
        "A message without words teaches the model to answer nothing in particular.",
        "Give the text, or leave the message out.",
    ),
    _rule(
        "whitespace_at_ends",
        "warning",
        "White space around an answer",
        f"{_LEARNED}: answers in use will begin or end with it, and comparisons with the expected text fail.",
        "Strip the text.",
        "strip",
    ),
    _rule(
        "whitespace_at_prompt_ends",
        "hint",
        "White space around a prompt",
        "It is part of the prompt: in use the model sees another one unless the same white space is there.",
        "Strip the text, or write the same in use.",
        "strip",
    ),
    _rule(
        "replacement_character",
        "warning",
        "Lost characters",
        _DAMAGED,
        "Export the data again as UTF-8; what stood there cannot be found out from this file.",
    ),
    _rule(
        "mojibake",
        "warning",
        "Text in a wrong encoding",
        _DAMAGED,
        "Export the data again as UTF-8, or decode it once more.",
    ),
    _rule(
        "control_characters",
        "warning",
        "Control characters",
        "They come from terminals and broken exports; tokenisers have rare tokens for them, which the model learns.",
        "Remove them.",
    ),
    _rule(
        "invisible_characters",
        "hint",
        "Invisible characters",
        "Nobody sees them, but the tokeniser does: the same words become other tokens.",
        "Remove them where they have no purpose.",
    ),
    _rule(
        "html_entities",
        "hint",
        "HTML entities",
        f"{_LEARNED} as it stands, with its ampersand, wherever the text is not shown as HTML.",
        "Decode them, unless HTML is what the model should write.",
    ),
    _rule(
        "escaped_line_breaks",
        "hint",
        "Line breaks escaped twice",
        f"{_LEARNED} as a backslash and an n in place of a line break.",
        "Escape the text once when the file is written.",
    ),
    _rule("email_address", "warning", "E-mail address", _PRIVATE, _MASK, "mask_personal_data"),
    _rule("phone_number", "warning", "Telephone number", _PRIVATE, _MASK, "mask_personal_data"),
    _rule("payment_card_number", "warning", "Payment card number", _PRIVATE, _MASK, "mask_personal_data"),
    _rule("bank_account_number", "warning", "Bank account number", _PRIVATE, _MASK, "mask_personal_data"),
    _rule("social_security_number", "warning", "Social security number", _PRIVATE, _MASK, "mask_personal_data"),
    _rule(
        "secret_key",
        "warning",
        "Key or password",
        f"{_PRIVATE} Who has this file has the key already.",
        "Revoke it where it was issued, then mask it.",
        "mask_personal_data",
    ),
    _rule(
        "cut_off_answer",
        "warning",
        "Answer cut off",
        "The model learns to stop in the middle.",
        "Complete the answer, or drop the row.",
    ),
    _rule(
        "repeats_itself",
        "warning",
        "Answer in a loop",
        "The model learns to repeat itself; such rows come from generators that were stuck.",
        "Write the answer again, or drop the row.",
    ),
    _rule(
        "answer_repeats_prompt",
        "warning",
        "Answer is the prompt",
        "The model learns to echo.",
        "Give the answer, or drop the row.",
    ),
    _rule(
        "speaks_as_an_ai",
        "hint",
        "Answer speaks of itself as an AI",
        f"{_LEARNED}; such words come from the model that made the data.",
        "Keep them only where you want them.",
    ),
)

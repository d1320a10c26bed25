"""Documents as passages: plain text, Markdown and PDF, cut where a reader would pause.

Not covered: pictures of text (a scanned PDF is refused), tables, footnotes; a PDF's columns come as pypdf reads them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tunesmith.core.errors import InvalidRequest

TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown")
PDF_SUFFIX = ".pdf"
MAX_DOCUMENT_BYTES = 64 * 2**20
MAX_PDF_PAGES = 1_000
MAX_TEXT_CHARS = 20_000_000
"""Of all documents of a generation together."""
PASSAGE_CHARS = 1_200
"""About 300 tokens of English: enough to ask about, little enough to send with every call."""
MIN_PASSAGE_CHARS = 80
"""Less is a heading, a page number, a line of contents."""
MIN_LETTER_SHARE = 0.5
_NO_PASSAGE = "it holds no passage of at least 80 letters"
_NO_PDF_TEXT = "its pages hold no text: it may be a scan"


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a document. ``heading`` is the nearest one above it, or empty."""

    document: str
    text: str
    heading: str = ""
    page: int | None = None
    """From 1; None where there are no pages."""


def read_document(path: Path, name: str, room_chars: int = MAX_TEXT_CHARS) -> list[Passage]:
    """The passages of one document, whose kind its ``name`` tells; reading ends where there is no room for more.

    Raises InvalidRequest (param ``documents``): ``unsupported_document``, ``document_too_large``,
    ``document_without_text``, ``document_unreadable``.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in (*TEXT_SUFFIXES, PDF_SUFFIX):
        raise _problem(
            f"{name} is neither text, Markdown nor PDF.",
            code="unsupported_document",
            mend=f"Give a file that ends in {', '.join(TEXT_SUFFIXES)} or {PDF_SUFFIX}.",
        )
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise _too_large(name, f"{path.stat().st_size:,} bytes; the most is {MAX_DOCUMENT_BYTES:,}")
    found = _pdf_passages(path, name) if suffix == PDF_SUFFIX else _text_passages(path, name)
    passages = []
    for passage in found:
        passages.append(passage)
        room_chars -= len(passage.text)
        if room_chars < 0:
            raise _too_large(name, f"more text than fits: all documents together may have {MAX_TEXT_CHARS:,} letters")
    if not passages:
        raise _without_text(name, _NO_PDF_TEXT if suffix == PDF_SUFFIX else _NO_PASSAGE)
    return passages


def _text_passages(path: Path, name: str) -> Iterator[Passage]:
    raw = path.read_bytes()
    if raw.startswith(b"%PDF-") or b"\x00" in raw[:4096]:
        raise _problem(f"{name} is not text.", code="unsupported_document", mend="A PDF's name must end in .pdf.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _problem(
            f"Byte {error.start + 1} of {name} is not UTF-8.",
            code="document_unreadable",
            mend="Save the file as UTF-8.",
        ) from None
    is_markdown = Path(name).suffix.lower() in (".md", ".markdown")
    yield from _cut(text, name, None, is_markdown)


def _pdf_passages(path: Path, name: str) -> Iterator[Passage]:
    for number, text in _pdf_pages(path, name):
        yield from _cut(_unwrapped(text), name, number, False)


def _pdf_pages(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """(page number from 1, text) of every page."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise _problem(f"{name} is encrypted.", code="document_unreadable", mend="Save it without a password.")
        if len(reader.pages) > MAX_PDF_PAGES:
            raise _too_large(name, f"{len(reader.pages):,} pages; the most is {MAX_PDF_PAGES:,}")
        for number, page in enumerate(reader.pages, start=1):
            yield number, page.extract_text()
    # What a broken PDF makes pypdf raise, beside its own errors: it reads what it is told to.
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _problem(
            f"{name} cannot be read as PDF: {error or type(error).__name__}.",
            code="document_unreadable",
            mend="Open it in a viewer and print it to a new PDF, or save its text.",
        ) from error


def _unwrapped(text: str) -> str:
    """Words that a line's end has cut are joined; a PDF's lines are those of its print."""
    return re.sub(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])", "", text)


def _cut(text: str, document: str, page: int | None, is_markdown: bool) -> Iterator[Passage]:
    """Paragraphs gathered up to about ``PASSAGE_CHARS``; a heading begins a new passage."""
    heading, gathered = "", ""
    for paragraph in _paragraphs(text):
        title = _heading(paragraph.partition("\n")[0]) if is_markdown else ""
        if title or len(gathered) + len(paragraph) > PASSAGE_CHARS:
            yield from _passage(gathered, document, heading, page)
            gathered = ""
        if title:
            heading = title
            paragraph = paragraph.partition("\n")[2]
        gathered = f"{gathered}\n\n{paragraph}".strip()
    yield from _passage(gathered, document, heading, page)


def _heading(line: str) -> str:
    """The words of a Markdown heading; empty where the line is none."""
    found = re.match(r"#{1,6}\s+(?=\S)", line)
    return line[found.end() :].rstrip().rstrip("#").rstrip() if found else ""


def _passage(text: str, document: str, heading: str, page: int | None) -> Iterator[Passage]:
    num_letters = sum(letter.isalpha() for letter in text)
    if len(text) >= MIN_PASSAGE_CHARS and num_letters >= MIN_LETTER_SHARE * len(text):
        yield Passage(document=document, text=text, heading=heading, page=page)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\x00", "")):
        yield from _pieces(re.sub(r"[ \t]+", " ", paragraph).strip())


def _pieces(paragraph: str) -> Iterator[str]:
    """A paragraph longer than a passage, cut after sentences, else after words, else anywhere."""
    start = 0
    while len(paragraph) - start > PASSAGE_CHARS:
        window = paragraph[start : start + PASSAGE_CHARS]
        ends = [match.end() for match in re.finditer(r"[.!?。！？]\s+|\n", window)]
        at = next((end for end in reversed(ends) if end >= PASSAGE_CHARS // 3), None)
        at = at or window.rfind(" ", PASSAGE_CHARS // 3) + 1 or PASSAGE_CHARS
        if piece := window[:at].strip():
            yield piece
        start += at
    if piece := paragraph[start:].strip():
        yield piece


def _problem(message: str, *, code: str, mend: str) -> InvalidRequest:
    return InvalidRequest(message, code=code, param="documents", mend=mend)


def _too_large(name: str, how: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} has {how}.", code="document_too_large", param="documents", mend="Split it and name the parts you need."
    )


def _without_text(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name} cannot be used: {why}.",
        code="document_without_text",
        param="documents",
        mend="Make it readable with a text recognition (OCR) program, or give its text.",
    )

"""Documents become passages; what cannot become one is refused by name."""

import re
import time
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from tunesmith.core.errors import InvalidRequest
from tunesmith.data.generate import documents
from tunesmith.data.generate.documents import PASSAGE_CHARS, read_document

SENTENCE = "The old mill at the river grinds rye on Mondays and wheat on every other day. "


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pdf_of(pages: list[list[str]]) -> bytes:
    """A PDF whose pages have these lines: a plain one, as a word processor of 1995 would write it."""
    bodies = []
    for lines in pages:
        shown = " T* ".join(f"({line}) Tj" for line in lines)
        bodies.append(f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET".encode())
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, body in enumerate(bodies):
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
        objects.append(page.encode() + b"/Resources << /Font << /F1 3 0 R >> >> >>")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(body), body))
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))


def code_of(path: Path, name: str | None = None) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        read_document(path, name or path.name)
    assert caught.value.param == "documents"
    assert (name or path.name) in str(caught.value)
    return caught.value.code


def test_text_is_cut_at_paragraphs_and_all_of_it_is_there(tmp_path: Path) -> None:
    paragraphs = [f"Part {number}. {SENTENCE * (1 + number % 5)}".strip() for number in range(12)]
    passages = read_document(write(tmp_path, "mill.txt", "\ufeff" + "\r\n\r\n".join(paragraphs)), "mill.txt")
    assert "\n\n".join(passage.text for passage in passages) == "\n\n".join(paragraphs)
    assert len(passages) > 1
    assert all(len(passage.text) <= PASSAGE_CHARS for passage in passages)
    assert {passage.page for passage in passages} == {None}


def test_a_heading_begins_a_passage_and_names_it(tmp_path: Path) -> None:
    text = f"# Mills\n\n{SENTENCE * 2}\n\n## Rye ##\n{SENTENCE * 2}\n\nMore rye. {SENTENCE}"
    first, second = read_document(write(tmp_path, "a.md", text), "a.md")
    assert (first.heading, second.heading) == ("Mills", "Rye")
    assert second.text.endswith(f"More rye. {SENTENCE}".strip())


def test_a_pdf_gives_its_pages(tmp_path: Path) -> None:
    lines = [
        "The grinding stones of the mill are dressed once in a hun-",
        "dred days, by the miller and her two sons, with a steel bill.",
    ]
    path = write(tmp_path, "mill.pdf", pdf_of([lines, ["42"], lines]))
    passages = read_document(path, "mill.pdf")
    assert [passage.page for passage in passages] == [1, 3]
    assert "once in a hundred days" in passages[0].text


def test_a_scan_is_refused(tmp_path: Path) -> None:
    writer, buffer = PdfWriter(), BytesIO()
    for _ in range(3):
        writer.add_blank_page(width=612, height=792)
    writer.write(buffer)
    assert code_of(write(tmp_path, "scan.pdf", buffer.getvalue())) == "document_without_text"


def test_a_locked_pdf_is_refused(tmp_path: Path) -> None:
    writer, buffer = PdfWriter(clone_from=PdfReader(BytesIO(pdf_of([[SENTENCE]])))), BytesIO()
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(buffer)
    assert code_of(write(tmp_path, "locked.pdf", buffer.getvalue())) == "document_unreadable"


@pytest.mark.parametrize("cut", [20, 300, 500])
def test_a_torn_pdf_is_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, "torn.pdf", pdf_of([[SENTENCE, SENTENCE]] * 2)[:cut])
    assert code_of(path) in ("document_unreadable", "document_without_text")


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    assert code_of(write(tmp_path, "a.docx", "x" * 200)) == "unsupported_document"
    assert code_of(write(tmp_path, "none", "x" * 200)) == "unsupported_document"
    assert code_of(write(tmp_path, "really.txt", pdf_of([[SENTENCE]]))) == "unsupported_document"
    assert code_of(write(tmp_path, "binary.txt", b"\x00\x01" * 200)) == "unsupported_document"
    assert code_of(write(tmp_path, "latin.txt", ("é" * 200).encode("latin-1"))) == "document_unreadable"
    assert code_of(write(tmp_path, "html.pdf", "<html>" + SENTENCE)) == "document_unreadable"
    assert code_of(write(tmp_path, "empty.txt", "\n \n")) == "document_without_text"
    assert code_of(write(tmp_path, "numbers.txt", "1234567890 " * 50)) == "document_without_text"


def test_the_name_tells_the_kind_not_the_path(tmp_path: Path) -> None:
    path = write(tmp_path, "file-abc", SENTENCE * 3)
    assert read_document(path, "notes.TXT")[0].document == "notes.TXT"
    assert code_of(path, "notes.exe") == "unsupported_document"


def test_too_many_pages_or_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_PDF_PAGES", 2)
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 10_000)
    assert code_of(write(tmp_path, "long.pdf", pdf_of([[SENTENCE]] * 3))) == "document_too_large"
    assert code_of(write(tmp_path, "long.txt", SENTENCE * 1_000)) == "document_too_large"


def test_reading_ends_where_the_room_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "mill.pdf", pdf_of([[SENTENCE, SENTENCE]] * 50))
    seen: list[int] = []

    def counted(text: str) -> str:
        seen.append(len(text))
        return text

    monkeypatch.setattr(documents, "_unwrapped", counted)
    with pytest.raises(InvalidRequest) as caught:
        read_document(path, "mill.pdf", room_chars=400)
    assert caught.value.code == "document_too_large"
    assert len(seen) < 10


@pytest.mark.parametrize("unit", ["word ", "Sentence. ", "x", "# " + "#" * 1150 + "x\n\n"])
def test_the_time_grows_with_the_length(tmp_path: Path, unit: str) -> None:
    """It was quadratic: 8 MB took 5.4 s, which is some 0.3 s now."""
    path = write(tmp_path, "long.md", SENTENCE * 2 + "\n\n" + unit * (4_000_000 // len(unit)))
    started = time.process_time()
    read_document(path, "long.md")
    assert time.process_time() - started < 2.0


@given(st.text(alphabet="ab .!?\n\t。é", max_size=6_000))
def test_every_letter_of_a_text_is_in_one_piece(text: str) -> None:
    pieces = list(documents._paragraphs(text))
    assert all(len(piece) <= PASSAGE_CHARS for piece in pieces)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)

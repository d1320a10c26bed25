"""/v1/files: what is stored, what is refused, what stays on the disk."""

import asyncio
import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Response
from starlette.requests import Request
from starlette.testclient import TestClient

from tunesmith.api.upload import UploadedForm
from tunesmith.core.settings import Settings
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.repos.files import FileRepo

ROW = b'{"messages": []}\n'


def post(
    api: TestClient, data: bytes, *, name: str = "rows.jsonl", purpose: str | None = "fine-tune", **form: str
) -> Response:
    fields = form if purpose is None else {"purpose": purpose, **form}
    return api.post("/v1/files", data=fields, files={"file": (name, data)})


def stored(home: Path) -> list[Path]:
    return [path for path in (home / "blobs").rglob("*") if path.is_file()]


def test_a_file_is_stored_as_it_came(api: TestClient, settings: Settings) -> None:
    data = b"\xef\xbb\xbf" + ROW * 1000 + b"\xff tail without newline"
    answer = post(api, data)
    assert answer.status_code == 200
    file = answer.json()
    assert set(file) == {"id", "object", "bytes", "created_at", "filename", "purpose", "status"}
    assert (file["bytes"], file["filename"], file["status"]) == (len(data), "rows.jsonl", "processed")
    content = api.get(f"/v1/files/{file['id']}/content")
    assert content.content == data
    assert int(content.headers["content-length"]) == len(data)
    assert "attachment" in content.headers["content-disposition"]
    with api.app.state.services.database.reading() as session:
        assert FileRepo(session).get(file["id"]).sha256 == hashlib.sha256(data).hexdigest()
    assert [path.name for path in stored(settings.home)] == [file["id"]]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_form_may_arrive_in_any_pieces_and_order(api: TestClient, size: int) -> None:
    body = (
        b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a \\"b\\".jsonl"\r\n'
        b"Content-Type: application/json\r\n\r\n" + ROW + b"--frontie\r\n--\r\n\r\n--frontier\r\n"
        b'content-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--frontier--\r\n'
    )

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    headers = {"content-type": "multipart/form-data; boundary=frontier"}
    answer = api.post("/v1/files", content=pieces(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["filename"] == 'a "b".jsonl'
    assert api.get(f"/v1/files/{answer.json()['id']}/content").content == ROW + b"--frontie\r\n--\r\n"


@pytest.mark.parametrize(
    ("data", "number", "shown"),
    [
        (b"step,loss\n1,2\n", 1, "step,l"),
        (b'{\n  "messages": []\n}\n', 1, "{"),
        (b'[{"messages": []}]\n', 1, '[{\\"mes'),
        (b"\n\n42\n", 3, "42"),
        ('{"a": 1}\n'.encode("utf-16"), 1, "\ufffd"),
    ],
)
def test_a_first_line_that_is_no_object_is_refused(
    api: TestClient, settings: Settings, data: bytes, number: int, shown: str
) -> None:
    answer = post(api, data)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["message"].startswith(
        "Expected file to have JSONL format, where every line is a JSON dictionary. "
        f'Line {number} is not a dictionary (HINT: line starts with: "{shown}'
    )
    assert (error["param"], error["code"]) == (None, None)
    assert stored(settings.home) == []


def test_a_first_line_longer_than_a_batch_is_read_whole(api: TestClient) -> None:
    long_row = json.dumps({"messages": [{"role": "user", "content": "x" * 500_000}]}).encode()
    assert post(api, long_row).status_code == 200
    assert post(api, long_row[:-1]).status_code == 400


@pytest.mark.parametrize("data", [ROW.rstrip(), ROW.replace(b"\n", b"\r\n") * 2, b"\r\n" + ROW])
def test_line_ends_do_not_matter(api: TestClient, data: bytes) -> None:
    assert post(api, data).status_code == 200


def test_other_purposes_take_any_bytes(api: TestClient) -> None:
    assert post(api, b"\x00\x01", name="a.pdf", purpose="user_data").status_code == 200


@pytest.mark.parametrize(
    ("data", "form", "expected"),
    [
        (b"", {}, ("file", "empty_file")),
        (ROW, {"purpose": "fine-tune-results"}, ("purpose", "invalid_value")),
        (ROW, {"purpose": None}, ("purpose", "missing_required_parameter")),
        (ROW, {"name": "rows.csv"}, ("file", None)),
        (ROW, {"expires_after[anchor]": "created_at"}, ("expires_after.seconds", "invalid_value")),
        (
            ROW,
            {"expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            ("expires_after.anchor", "invalid_value"),
        ),
        (
            ROW,
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "10"},
            ("expires_after.seconds", "invalid_value"),
        ),
    ],
)
def test_what_is_refused_names_the_field_and_leaves_nothing(
    api: TestClient, settings: Settings, data: bytes, form: dict[str, str], expected: tuple[str, str | None]
) -> None:
    answer = post(api, data, **form)
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == expected
    assert stored(settings.home) == []
    assert api.get("/v1/files").json()["data"] == []


def test_a_form_without_a_file_or_with_two(api: TestClient, settings: Settings) -> None:
    two = [("file", ("a.jsonl", ROW)), ("file", ("b.jsonl", ROW))]
    answers = [
        api.post("/v1/files", files={"purpose": (None, "fine-tune")}),
        api.post("/v1/files", data={"purpose": "fine-tune"}, files=two),
        api.post("/v1/files", data={"purpose": "fine-tune"}),
        api.post("/v1/files", content=b"x", headers={"content-type": "multipart/form-data; boundary=b"}),
        api.post("/v1/files", content=b"x", headers={"content-type": "multipart/form-data"}),
        api.post("/v1/files", content=b"--b\r\nC", headers={"content-type": "multipart/form-data; boundary=b"}),
    ]
    assert [answer.status_code for answer in answers] == [400] * 6
    assert stored(settings.home) == []


def test_a_file_over_the_limit_is_a_413_with_the_way_out(api: TestClient, settings: Settings) -> None:
    answer = post(api, ROW * (2**20 // len(ROW) + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "file_too_large"
    assert "TUNESMITH_MAX_FILE_BYTES" in answer.json()["error"]["message"]
    declared = post(api, b"x" * (5 * 2**20))
    assert declared.status_code == 413
    assert stored(settings.home) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/x.jsonl", "x.jsonl"),
        ("C:\\rows.jsonl", "rows.jsonl"),
        ("a\x1b[31m.jsonl", "a[31m.jsonl"),
        ("größe.jsonl", "größe.jsonl"),
    ],
)
def test_a_name_is_only_shown(api: TestClient, settings: Settings, name: str, shown: str) -> None:
    file = post(api, ROW, name=name).json()
    assert file["filename"] == shown
    assert [path.name for path in stored(settings.home)] == [file["id"]]
    assert api.get(f"/v1/files/{file['id']}/content").status_code == 200


def test_expiry_is_shown_and_kept(api: TestClient) -> None:
    expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = post(api, ROW, **expiry).json()
    assert file["expires_at"] == file["created_at"] + 3600
    with api.app.state.services.database.session() as session:
        FileRepo(session).get(file["id"]).expires_at = file["created_at"]
    assert api.get(f"/v1/files/{file['id']}").status_code == 404


def test_lists_page_through_all_files(api: TestClient) -> None:
    ids = [post(api, ROW).json()["id"] for _ in range(4)]
    post(api, ROW, purpose="batch")
    first = api.get("/v1/files", params={"limit": 3, "purpose": "fine-tune"}).json()
    assert [file["id"] for file in first["data"]] == ids[:0:-1]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[3], ids[1], True)
    rest = api.get("/v1/files", params={"limit": 3, "purpose": "fine-tune", "after": ids[1]}).json()
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    oldest_first = api.get("/v1/files", params={"order": "asc"}).json()["data"]
    assert [file["id"] for file in oldest_first][:4] == ids
    empty = api.get("/v1/files", params={"purpose": "evals"}).json()
    assert empty == {"object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=10001", "limit"), ("limit=x", "limit"), ("order=up", "order")]
)
def test_a_wrong_query_is_refused(shared_api: TestClient, query: str, param: str) -> None:
    answer = shared_api.get(f"/v1/files?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_deletion_takes_the_bytes_too(api: TestClient, settings: Settings) -> None:
    file_id = post(api, ROW).json()["id"]
    assert api.delete(f"/v1/files/{file_id}").json() == {"id": file_id, "object": "file", "deleted": True}
    assert stored(settings.home) == []
    for answer in (
        api.get(f"/v1/files/{file_id}"),
        api.get(f"/v1/files/{file_id}/content"),
        api.delete(f"/v1/files/{file_id}"),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"No such File object: {file_id}"


def test_an_upload_is_not_held_in_memory(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
        for _ in range(64):
            yield b"x" * 2**20
        yield b"\r\n--b--\r\n"

    coming = pieces()

    async def receive() -> dict[str, object]:
        piece = next(coming, b"")
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    form = UploadedForm(LocalBlobs(tmp_path), max_file_bytes=2**30)
    tracemalloc.start()
    try:
        asyncio.run(form.read(Request({"type": "http", "method": "POST", "headers": headers}, receive)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert form.commit("file-big").num_bytes == 64 * 2**20
    assert peak_bytes < 24 * 2**20

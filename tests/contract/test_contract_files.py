"""Files through the official SDK: sync and async, pages, errors."""

import io
import json
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

ROW = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}).encode()


def test_a_file_from_upload_to_deletion(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ROW + b"\r\n" + ROW)
    file = client.files.create(file=path, purpose="fine-tune")
    assert (file.filename, file.bytes, file.status) == ("rows.jsonl", path.stat().st_size, "processed")
    assert client.files.wait_for_processing(file.id, poll_interval=0.05, max_wait_seconds=5).id == file.id
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == path.read_bytes()
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_content_streams(client: OpenAI, tmp_path: Path) -> None:
    data = b"{}\n" * 900_000
    file = client.files.create(file=("big.jsonl", io.BytesIO(data)), purpose="fine-tune")
    with client.files.with_streaming_response.content(file.id) as response:
        response.stream_to_file(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    client.files.delete(file.id)


def test_the_sdk_walks_all_pages(client: OpenAI) -> None:
    made = {client.files.create(file=("r.jsonl", ROW), purpose="user_data").id for _ in range(5)}
    raw = client.files.with_raw_response.list(purpose="user_data", limit=2)
    assert raw.parse().has_more
    listed = [file.id for file in client.files.list(purpose="user_data", limit=2)]
    assert made <= set(listed)  # other tests leave files here too
    assert len(listed) == len(set(listed))
    assert [file.id for file in client.files.list(purpose="user_data", order="asc")] == [
        file.id for file in reversed(list(client.files.list(purpose="user_data")))
    ]


def test_an_expiry_is_taken(client: OpenAI) -> None:
    expiry = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("r.jsonl", ROW), purpose="batch", expires_after=expiry)
    assert file.expires_at == file.created_at + 3600


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", b"a,b\n1,2\n", "Line 1 is not a dictionary"),
        ("rows.jsonl", b"", "empty"),
        ("rows.csv", b"{}", "Must be .jsonl"),
    ],
)
def test_a_wrong_file_is_a_bad_request(client: OpenAI, name: str, data: bytes, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        client.files.create(file=(name, data), purpose="fine-tune")


def test_too_large_a_file_is_a_413_that_the_sender_sees(client: OpenAI) -> None:
    for num_bytes in (3 * 2**20 + 1, 12 * 2**20):
        with pytest.raises(openai.APIStatusError, match=r"3,145,728|4,194,304") as refused:
            client.files.create(file=("rows.jsonl", b"{}\n" * (num_bytes // 3 + 1)), purpose="fine-tune")
        assert refused.value.status_code == 413


async def _walk(client: AsyncOpenAI) -> tuple[str, list[str], bytes]:
    async with client as sdk:
        file = await sdk.files.create(file=("async.jsonl", ROW), purpose="vision")
        found = [item.id async for item in sdk.files.list(purpose="vision", limit=1)]
        content = (await sdk.files.content(file.id)).read()
        await sdk.files.delete(file.id)
    return file.id, found, content


def test_the_async_sdk(async_client: AsyncOpenAI) -> None:
    import asyncio

    file_id, found, content = asyncio.run(_walk(async_client))
    assert (found, content) == ([file_id], ROW)

"""Chat through the official SDK: whole and streamed, sync and async, and what is refused."""

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
from job_steps import MODEL
from live_server import LiveServer
from official import check
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion

ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count from one to five."}],
    "temperature": 0,
    "seed": 1,
    "max_tokens": 12,
}
END_OF_TURN = "2"


def ask(client: OpenAI, **changes: Any) -> ChatCompletion:
    answer = client.chat.completions.create(**{**ASK, **changes})
    assert isinstance(answer, ChatCompletion)
    return answer


def streamed(client: OpenAI, **changes: Any) -> list[dict[str, Any]]:
    """The chunks of a streamed answer, each as OpenAI's document describes it."""
    chunks = []
    for chunk in client.chat.completions.create(**{**ASK, "stream": True, **changes}):
        document = chunk.to_dict(mode="json")
        check(document, "CreateChatCompletionStreamResponse")
        chunks.append(document)
    return chunks


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_a_whole_answer(client: OpenAI) -> None:
    answer = ask(client)
    assert answer.model == MODEL
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint is not None
    assert answer.system_fingerprint.startswith("fp_")
    (choice,) = answer.choices
    assert choice.message.content
    assert (choice.finish_reason, choice.logprobs, choice.message.refusal) == ("length", None, None)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_a_stream_says_the_same_as_a_whole_answer(client: OpenAI) -> None:
    whole = ask(client)
    chunks = streamed(client)
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert len({(chunk["id"], chunk["created"], chunk["system_fingerprint"]) for chunk in chunks}) == 1
    assert {chunk["model"] for chunk in chunks} == {MODEL}
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_ends_a_stream_when_asked_for(client: OpenAI) -> None:
    chunks = streamed(client, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 12


def test_a_stream_is_bare_server_sent_events(server: LiveServer) -> None:
    headers = {"authorization": f"Bearer {server.key}"}
    answer = httpx.post(
        f"{server.base_url}/chat/completions", json={**ASK, "stream": True}, headers=headers, timeout=60
    )
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-request-id"].startswith("req_")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])


def test_max_completion_tokens(client: OpenAI) -> None:
    answer = ask(client, max_tokens=None, max_completion_tokens=3)
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (3, "length")


def test_a_turn_ends_and_its_end_is_not_shown(client: OpenAI) -> None:
    answer = ask(client, messages=[{"role": "user", "content": "Say only: yes"}], max_tokens=200)
    assert answer.choices[0].finish_reason == "stop"
    assert "<|im_end|>" not in (answer.choices[0].message.content or "")


def test_stop(client: OpenAI) -> None:
    content = ask(client, max_tokens=30).choices[0].message.content or ""
    word = content.split()[3]
    for stop in (word, ["never said", word]):
        answer = ask(client, max_tokens=30, stop=stop)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.content == content[: content.index(word)]
        assert text_of(streamed(client, max_tokens=30, stop=stop)) == content[: content.index(word)]


def test_a_seed_repeats_an_answer_and_choices_differ(client: OpenAI) -> None:
    """One choice at a time repeats; choices that run side by side share batches, which may change their last digits."""
    changes = {"temperature": 1.5, "max_tokens": 8, "seed": 5, "logit_bias": {END_OF_TURN: -100}}
    texts = [ask(client, **changes).choices[0].message.content for _ in range(3)]
    assert texts[1] == texts[2]  # the first may find another prompt's keys and values where it begins
    answer = ask(client, n=3, **changes)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24


def test_choices_of_a_stream_come_by_index(client: OpenAI) -> None:
    changes = {"n": 2, "temperature": 1.2, "seed": 3, "logit_bias": {END_OF_TURN: -100}}
    chunks = streamed(client, **changes, stream_options={"include_usage": True})
    for index in (0, 1):
        mine = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] for choice in mine if choice["finish_reason"]] == ["length"]
        assert text_of(chunks, index)
    assert text_of(chunks, 0) != text_of(chunks, 1)
    assert chunks[-1]["usage"]["completion_tokens"] == 24


@pytest.mark.parametrize("top", [None, 0, 2])
def test_logprobs(client: OpenAI, top: int | None) -> None:
    changes = {"logprobs": True} if top is None else {"logprobs": True, "top_logprobs": top}
    answer = ask(client, **changes)
    choice = answer.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 12
    spelled = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert spelled.decode() == choice.message.content
    for token in choice.logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == (top or 0)
        if top:
            assert token.token == token.top_logprobs[0].token  # greedy takes the likeliest
    pieces = [piece["choices"][0].get("logprobs") for piece in streamed(client, **changes)]
    in_stream = [token for piece in pieces if piece for token in piece["content"]]
    assert [token["token"] for token in in_stream] == [token.token for token in choice.logprobs.content]


def test_penalties_and_biases_change_the_answer(client: OpenAI) -> None:
    changes = {"messages": [{"role": "user", "content": "Say only: yes yes yes yes"}], "max_tokens": 40}
    assert ask(client, **changes).choices[0].finish_reason == "stop"
    unended = ask(client, **changes, logit_bias={END_OF_TURN: -100}).choices[0]
    assert unended.finish_reason == "length"
    penalised = ask(client, **changes, logit_bias={END_OF_TURN: -100}, frequency_penalty=2, presence_penalty=2).choices[
        0
    ]
    assert penalised.message.content != unended.message.content


def test_fields_that_change_nothing_here(client: OpenAI) -> None:
    answer = ask(client, user="ann", metadata={"a": "b"}, store=False, service_tier="auto")
    assert answer.choices[0].message.content == ask(client).choices[0].message.content


def test_json_mode_gives_json(client: OpenAI) -> None:
    schema = {
        "name": "answer",
        "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    }
    answer = ask(client, response_format={"type": "json_schema", "json_schema": schema}, max_tokens=40)
    assert isinstance(json.loads(answer.choices[0].message.content or "")["n"], int)


def test_an_unknown_model(client: OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(**{**ASK, "model": "ft:none:acme::x", "stream": stream})
        assert missing.value.code == "model_not_found"
        assert "`ft:none:acme::x` does not exist or you do not have access to it." in missing.value.message


def test_too_long_a_prompt(client: OpenAI) -> None:
    long = [{"role": "user", "content": "hello " * 9000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**{**ASK, "messages": long, "stream": stream})
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    ("changes", "param"), [({"temperature": 3}, "temperature"), ({"n": 0}, "n"), ({"messages": []}, "messages")]
)
def test_a_wrong_value(client: OpenAI, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **changes)
    assert refused.value.param == param


def test_a_request_that_the_engine_cannot_read(client: OpenAI) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "not JSON"}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"}]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, messages=[*ASK["messages"], *turns])
    assert caught.value.code == "engine_refused"


def test_more_tokens_than_an_engine_can_count(client: OpenAI) -> None:
    answer = ask(client, max_tokens=2**40, stop=["", "e"])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content


async def _both_at_once(client: AsyncOpenAI) -> tuple[str | None, str]:
    async def whole() -> str | None:
        return (await client.chat.completions.create(**ASK)).choices[0].message.content

    async def stream() -> str:
        chunks = await client.chat.completions.create(**ASK, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    async with client:
        first, second = await asyncio.gather(whole(), stream())
    return first, second


def test_the_async_sdk(async_client: AsyncOpenAI, client: OpenAI) -> None:
    expected = ask(client).choices[0].message.content
    assert asyncio.run(_both_at_once(async_client)) == (expected, expected)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(server: LiveServer, client: OpenAI, stream: bool) -> None:
    """Two chats are all that the engine takes at once; each of these would run for thousands of tokens."""
    endless = {**ASK, "max_tokens": None, "logit_bias": {END_OF_TURN: -100}, "stream": stream, "n": 2}
    headers = {"authorization": f"Bearer {server.key}"}
    with httpx.Client(headers=headers, timeout=3) as http, suppress(httpx.ReadTimeout):
        with http.stream("POST", f"{server.base_url}/chat/completions", json=endless) as response:
            next(response.iter_bytes())
        assert stream, "a whole answer cannot be here already"
    began_s = time.monotonic()
    assert ask(client, max_tokens=1).choices[0].message.content is not None
    assert time.monotonic() - began_s < 15

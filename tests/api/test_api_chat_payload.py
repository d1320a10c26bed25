"""What an engine is sent for a chat request, and what is refused before one is started."""

from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from tunesmith.api.chat.payload import engine_payloads
from tunesmith.api.wire.chat import ChatRequest
from tunesmith.data.formats import decode_row

HELLO = [{"role": "user", "content": "Hello"}]


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": HELLO, **fields})


def test_messages_take_the_form_that_training_gives_them() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Look", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "found", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "Calling", "function_call": {"name": "old", "arguments": "{}"}},
        {"role": "function", "content": "done", "name": "old"},
        {"role": "assistant", "content": "Yes."},
    ]
    trained = decode_row(msgspec.json.encode({"messages": messages}), line=1).template_messages()
    assert engine_payloads(request(messages=messages))[0]["messages"] == trained


def test_what_an_sdk_sends_back_is_understood() -> None:
    answer = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
        "audio": None,
    }
    payload = engine_payloads(request(messages=[*HELLO, answer, *HELLO]))[0]
    assert payload["messages"][1] == {"role": "assistant", "content": "Hi"}


def test_only_what_was_asked_for_is_sent() -> None:
    payload = engine_payloads(request(user="ann", metadata={"a": "b"}, store=True, service_tier="auto"))[0]
    assert set(payload) == {"messages", "stream", "stream_options"}


def test_fields_of_one_request() -> None:
    payload = engine_payloads(
        request(temperature=0, top_p=0.5, max_tokens=5, stop="END", presence_penalty=1, logit_bias={"5": -100})
    )[0]
    assert payload["temperature"] == 0
    assert payload["top_p"] == 0.5
    assert payload["max_tokens"] == 5
    assert payload["stop"] == ["END"]
    assert payload["presence_penalty"] == 1
    assert payload["logit_bias"] == {"5": -100}
    assert engine_payloads(request(max_completion_tokens=6))[0]["max_tokens"] == 6


def test_each_choice_has_its_own_seed() -> None:
    seeds = [payload["seed"] for payload in engine_payloads(request(seed=-1, n=3))]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**32 - 1 for seed in seeds)
    assert engine_payloads(request(seed=7))[0]["seed"] == 7


@pytest.mark.parametrize(
    ("stop", "sent"), [([], None), ("", None), ([""], None), (["", "END"], ["END"]), (["a", "b"], ["a", "b"])]
)
def test_empty_stops_stop_nothing(stop: str | list[str], sent: list[str] | None) -> None:
    assert engine_payloads(request(stop=stop))[0].get("stop") == sent


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_engine_is_asked_for_no_more_tokens_than_it_can_count(field: str) -> None:
    assert engine_payloads(request(**{field: 2**70}))[0]["max_tokens"] < 2**31
    assert engine_payloads(request(**{field: 32_768}))[0]["max_tokens"] == 32_768


def test_tools_are_passed_on_as_they_came() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [None, 1], "default": None}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema, "strict": True}}
    assert engine_payloads(request(tools=[tool]))[0]["tools"] == [tool]


@pytest.mark.parametrize(("asked", "sent"), [(None, 1), (0, 1), (3, 3), (20, 20)])
def test_an_engine_is_always_asked_for_a_likeliest_token(asked: int | None, sent: int) -> None:
    payload = engine_payloads(request(logprobs=True, top_logprobs=asked))[0]
    assert (payload["logprobs"], payload["top_logprobs"]) == (True, sent)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "array_below_min_length"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
            "invalid_value",
        ),
        ({"messages": "Hello"}, "messages", "invalid_type"),
        ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name", "invalid_type"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
            "messages[0].tool_calls[0].id",
            "missing_required_parameter",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": "abc"}]}, "messages[0].tool_calls", "invalid_type"),
        ({"messages": [{"role": "assistant", "function_call": "abc"}]}, "messages[0].function_call", "invalid_type"),
        ({"tools": [{"x": 1}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing_required_parameter"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        ({"temperature": -1}, "temperature", "integer_below_min_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "decimal_above_max_value"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 9}, "n", "integer_above_max_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "invalid_parameter_combination"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"presence_penalty": 3}, "presence_penalty", "integer_above_max_value"),
        ({"frequency_penalty": -3}, "frequency_penalty", "integer_below_min_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_parameter_combination"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
        ({"logprobs": 3}, "logprobs", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_parameter_combination"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"modalities": ["audio"]}, "modalities[0]", "invalid_value"),
        ({"top_k": 5}, "top_k", "unknown_parameter"),
        ({"model": 5}, "model", "invalid_type"),
    ],
)
def test_what_is_refused_names_the_field(shared_api: TestClient, fields: dict[str, Any], param: str, code: str) -> None:
    answer = shared_api.post("/v1/chat/completions", json={"model": "none", "messages": HELLO, **fields})
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_required_fields_of_a_chat(shared_api: TestClient, missing: str) -> None:
    body: dict[str, Any] = {"model": "m", "messages": HELLO}
    del body[missing]
    error = shared_api.post("/v1/chat/completions", json=body).json()["error"]
    assert error["message"] == f"Missing required parameter: '{missing}'."


def test_an_unknown_model_is_never_the_base_model(shared_api: TestClient) -> None:
    answer = shared_api.post("/v1/chat/completions", json={"model": "gpt-none", "messages": HELLO})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["message"] == "The model `gpt-none` does not exist or you do not have access to it."
    assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_found")

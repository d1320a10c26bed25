"""A teacher over real HTTP: what passes is waited for, what does not is said plainly, the key is shown to nobody."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from time import time

import pytest

from recorded_teacher import KEY, Fault, RecordedTeacher, error_body, recorded_teacher
from tunesmith.core.errors import TunesmithError
from tunesmith.data.generate.questions import Question
from tunesmith.data.generate.teacher import MAX_TRIES, Declined, Reply, Teacher

ASK = {"role": "user", "content": "Write a message. Tone: plain. Length: short."}


def question(seed: int = 1, max_tokens: int = 50) -> Question:
    return Question(messages=[ASK], max_tokens=max_tokens, temperature=0.9, seed=seed)


@pytest.fixture
def server() -> Iterator[RecordedTeacher]:
    with recorded_teacher() as teacher:
        yield teacher


def ask(url: str, *questions: Question, timeout_s: float = 20.0) -> list[Reply | Exception]:
    async def run() -> list[Reply | Exception]:
        async with Teacher(url, "m", KEY, timeout_s=timeout_s, first_wait_s=0.01) as teacher:
            return [await _outcome(teacher, one) for one in questions]

    return asyncio.run(run())


async def _outcome(teacher: Teacher, asked: Question) -> Reply | Exception:
    try:
        return await teacher.ask(asked)
    except (TunesmithError, Declined) as error:
        return error


def error_of(url: str, *questions: Question) -> TunesmithError:
    *_, error = ask(url, *(questions or (question(),)))
    assert isinstance(error, TunesmithError)
    assert KEY not in str(error)
    return error


def test_an_answer_with_its_usage(server: RecordedTeacher) -> None:
    (reply,) = ask(server.base_url, question())
    assert isinstance(reply, Reply)
    assert reply.text == "One example of a note sent to a baker."
    assert (reply.prompt_tokens, reply.completion_tokens, reply.is_estimated) == (78, 11, False)
    assert server.authorizations == [f"Bearer {KEY}"]
    assert server.bodies[0] == {"model": "m", "messages": [ASK], "max_tokens": 50, "temperature": 0.9, "seed": 1}


def retry_after_seconds() -> dict[str, str]:
    return {"retry-after": "0.3"}


def retry_after_milliseconds() -> dict[str, str]:
    return {"retry-after-ms": "300"}


def retry_after_date() -> dict[str, str]:
    return {"retry-after": formatdate(time() + 2, usegmt=True)}


@pytest.mark.parametrize("headers", [retry_after_seconds, retry_after_milliseconds, retry_after_date])
def test_429_is_waited_for_as_long_as_asked(server: RecordedTeacher, headers: Callable[[], dict[str, str]]) -> None:
    server.faults.append(Fault(429, error_body("slow down", "rate_limit_exceeded"), headers()))
    (reply,) = ask(server.base_url, question())
    assert isinstance(reply, Reply)
    assert server.moments_s[1] - server.moments_s[0] >= 0.25


def test_while_one_call_is_told_to_wait_the_others_do(server: RecordedTeacher) -> None:
    async def run() -> None:
        async with Teacher(server.base_url, "m", None) as teacher:
            server.faults.append(Fault(429, b"{}", {"retry-after": "0.4"}))
            first = asyncio.create_task(teacher.ask(question(1)))
            while not server.bodies:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            await asyncio.gather(first, teacher.ask(question(2)))

    asyncio.run(run())
    assert server.moments_s[1] - server.moments_s[0] >= 0.35


def test_a_wait_without_end_stops_the_run(server: RecordedTeacher) -> None:
    server.faults.append(Fault(429, error_body("come back tomorrow"), {"retry-after": "86400"}))
    error = error_of(server.base_url)
    assert error.code == "teacher_unavailable"
    assert "86,400 seconds" in str(error)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_does_not_pass_is_given_up(server: RecordedTeacher, status: int) -> None:
    server.faults.extend([Fault(status, b"<html>busy</html>")] * 10)
    assert error_of(server.base_url).code == "teacher_unavailable"
    assert len(server.bodies) == MAX_TRIES


def test_an_empty_account_is_not_asked_again(server: RecordedTeacher) -> None:
    server.faults.append(Fault(429, error_body("no quota", "insufficient_quota")))
    assert error_of(server.base_url).code == "teacher_quota"
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(401, error_body(f"Incorrect API key provided: {KEY}.", "invalid_api_key")), "teacher_unauthorized"),
        (Fault(403, error_body("no access")), "teacher_unauthorized"),
        (Fault(404, error_body("no such model", "model_not_found")), "teacher_not_found"),
        (Fault(404, b"<html>nginx</html>"), "teacher_not_found"),
        (Fault(400, error_body("messages are odd")), "teacher_refused"),
        (Fault(422, b'{"detail": [1]}'), "teacher_refused"),
        (Fault(302, b"", {"location": "http://10.0.0.1/"}), "teacher_redirects"),
        (Fault(200, b"x" * (5 * 2**20)), "teacher_bad_answer"),
    ],
)
def test_what_asking_again_cannot_mend_ends_the_run_at_once(server: RecordedTeacher, fault: Fault, code: str) -> None:
    server.faults.append(fault)
    assert error_of(server.base_url).code == code
    assert len(server.bodies) == 1


MALFORMED = [b"<html>hello</html>", b"", b"null", b'{"choices": []}', b'{"choices": [{"message": 1}]}', b"\xff\xfe"]


@pytest.mark.parametrize("body", MALFORMED)
def test_one_malformed_answer_costs_one_candidate(server: RecordedTeacher, body: bytes) -> None:
    server.faults.extend([Fault(200, body)] * 2)
    first, second, third = ask(server.base_url, question(1), question(2), question(3))
    assert isinstance(first, Declined)
    assert isinstance(second, Declined)
    assert first.rule == "malformed_answer"
    assert isinstance(third, Reply)


def test_three_in_a_row_are_no_chat_server(server: RecordedTeacher) -> None:
    server.faults.extend([Fault(200, b"<html>hello</html>")] * 3)
    error = error_of(server.base_url, question(1), question(2), question(3))
    assert error.code == "teacher_bad_answer"
    assert "<html>" in str(error)


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded"])
def test_a_declined_question_ends_nothing(server: RecordedTeacher, code: str) -> None:
    server.faults.append(Fault(400, error_body("not this", code)))
    first, second = ask(server.base_url, question(1), question(2))
    assert isinstance(first, Declined)
    assert first.rule == "teacher_declined"
    assert isinstance(second, Reply)


def test_a_refusal_is_paid_for(server: RecordedTeacher) -> None:
    message = b'{"content": null, "refusal": "I will not."}'
    body = b'{"choices": [{"message": %b}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}' % message
    server.faults.append(Fault(200, body))
    (declined,) = ask(server.base_url, question())
    assert isinstance(declined, Declined)
    assert (declined.prompt_tokens, declined.completion_tokens) == (7, 3)


def test_a_model_that_takes_other_parameters_is_asked_its_way(server: RecordedTeacher) -> None:
    server.faults += [
        Fault(400, error_body("Use 'max_completion_tokens' instead.", "unsupported_parameter", "max_tokens")),
        Fault(400, error_body("Only 1 is supported.", "unsupported_value", "temperature")),
    ]
    replies = ask(server.base_url, question(1), question(2))
    assert all(isinstance(reply, Reply) for reply in replies)
    assert [sorted(body) for body in server.bodies[2:]] == [["max_completion_tokens", "messages", "model", "seed"]] * 2


def test_an_answer_without_usage_is_estimated(server: RecordedTeacher) -> None:
    server.faults.append(Fault(200, b'{"choices": [{"message": {"content": "Yes, on Mondays."}}]}'))
    (reply,) = ask(server.base_url, question())
    assert isinstance(reply, Reply)
    assert reply.is_estimated
    assert reply.prompt_tokens > 10
    assert 3 <= reply.completion_tokens <= 10


def test_a_slow_answer_is_asked_again_and_counted(server: RecordedTeacher) -> None:
    server.delay_s = 0.6

    tries: list[bool | None] = []

    async def run() -> Reply:
        async with Teacher(server.base_url, "m", None, timeout_s=0.3, first_wait_s=0.01) as teacher:
            asked = asyncio.create_task(teacher.ask(question(), lambda: tries.append(None), tries.append))
            while not server.bodies:
                await asyncio.sleep(0.01)
            server.delay_s = 0.0
            return await asked

    assert isinstance(asyncio.run(run()), Reply)
    assert tries == [None, True, None]
    assert len(server.bodies) == 2


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
@pytest.mark.parametrize("uses_proxies", [False, True])
def test_no_proxy_sees_the_key_of_a_teacher_on_this_machine(
    server: RecordedTeacher, monkeypatch: pytest.MonkeyPatch, variable: str, uses_proxies: bool
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with recorded_teacher() as proxy:
        monkeypatch.setenv(variable, proxy.base_url.removesuffix("/v1"))

        async def run() -> Reply:
            async with Teacher(server.base_url, "m", KEY, uses_proxies=uses_proxies) as teacher:
                return await teacher.ask(question())

        assert isinstance(asyncio.run(run()), Reply)
        assert proxy.authorizations == []


@pytest.mark.parametrize(("uses_proxies", "num_seen"), [(False, 0), (True, 1)])
def test_a_teacher_elsewhere_is_reached_through_a_proxy_where_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, uses_proxies: bool, num_seen: int
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with recorded_teacher() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
        num_tries = 0

        def once() -> None:
            nonlocal num_tries
            num_tries += 1
            if num_tries > 1:
                raise RuntimeError

        async def run() -> Reply:
            url = "http://teacher.invalid/v1"
            async with Teacher(url, "m", KEY, uses_proxies=uses_proxies, first_wait_s=0.01) as teacher:
                return await teacher.ask(question(), once)

        with pytest.raises((RuntimeError, TunesmithError)):
            asyncio.run(run())
        assert proxy.num_posts == num_seen


def test_nobody_there_is_said(server: RecordedTeacher) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        error = error_of(url)
    assert error.code == "teacher_unavailable"
    assert url in str(error)


def test_a_wrong_path_is_said(server: RecordedTeacher) -> None:
    error = error_of(server.base_url.removesuffix("/v1"))
    assert error.code == "teacher_not_found"
    assert "/v1" in str(error)

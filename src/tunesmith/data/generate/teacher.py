"""A teacher: any server with OpenAI's chat completions. Patient with what passes, plain about what does not.

``ask`` answers, or raises ``Declined`` where only this one question failed, or a ``TunesmithError`` where asking on
makes no sense: the run then stops, and can be resumed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from tunesmith.core.clock import monotonic_s, unix_now_s
from tunesmith.core.errors import Forbidden, InvalidRequest, TunesmithError, Unauthenticated, Unavailable
from tunesmith.core.log import get_logger
from tunesmith.data.generate.questions import Question

log = get_logger(__name__)

MAX_TRIES = 6
FIRST_WAIT_S = 1.0
MAX_WAIT_S = 300.0
"""A teacher that asks for more patience stops the run: it can be resumed then."""
MAX_ANSWER_BYTES = 4 * 2**20
MAX_MALFORMED_IN_A_ROW = 3
"""That many answers which are none: the address is no chat server."""
_CONNECT_S = 10.0
_DECLINING_CODES = frozenset({"content_filter", "content_policy_violation", "context_length_exceeded"})
_QUOTA_CODE = "insufficient_quota"
_OPTIONAL = ("temperature", "seed")
_BAD_ANSWER = "teacher_bad_answer"
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
_LOST_STATUSES = frozenset({408, 502, 504, 524})
"""Of a gateway whose server may have answered, too late or into a broken connection; Azure bills a 408."""


@dataclass(frozen=True)
class Reply:
    """What the teacher said. ``is_estimated``: it gave no usage, so the tokens are a guess by length."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    is_estimated: bool


class Declined(Exception):
    """One question failed and others may not: ``rule`` is an id of ``filter.DROP_RULES``."""

    def __init__(self, rule: str, what: str, tokens: tuple[int, int], *, is_estimated: bool):
        super().__init__(what)
        self.rule = rule
        self.what = what
        self.prompt_tokens, self.completion_tokens = tokens
        self.is_estimated = is_estimated


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Trouble(msgspec.Struct, frozen=True):
    message: str = ""
    code: str | int | None = None
    param: str | None = None


class _TroubleBody(msgspec.Struct, frozen=True):
    error: _Trouble | str


class _TryAgain(Exception):
    """This may pass; ``wait_s`` is what the teacher asked for. ``is_lost``: it was sent, and may be billed."""

    def __init__(self, what: str, wait_s: float | None = None, *, is_lost: bool):
        super().__init__(what)
        self.wait_s = wait_s
        self.is_lost = is_lost


class _AskAnotherWay(Exception):
    """The teacher takes other parameters, which the next try has."""


OnTry = Callable[[], None]
"""Called before each try goes out; what it raises ends the asking."""
OnNoAnswer = Callable[[bool], None]
"""Told of each try that brought no answer, and whether the teacher may bill it all the same."""


def _no_try() -> None: ...


def _no_loss(_is_lost: bool) -> None: ...


class Teacher:
    """``async with Teacher(...)``. The key goes into the header of requests to ``base_url``, and nowhere else.

    ``uses_proxies``: proxies of the environment are used, but never for an address of this machine.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        uses_proxies: bool = False,
        timeout_s: float = 300.0,
        first_wait_s: float = FIRST_WAIT_S,
    ):
        self.model = model
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._key = api_key
        self._first_wait_s = first_wait_s
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=None),
            follow_redirects=False,
            transport=transport,
            # A proxy would make the guard's check of the address worthless, and be shown our own server's keys.
            trust_env=uses_proxies and transport is None and not _is_loopback(base_url),
        )
        self._length_field = "max_tokens"
        self._left_out: set[str] = set()
        self._quiet_until_s = 0.0
        self._num_malformed = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, question: Question, on_try: OnTry = _no_try, on_no_answer: OnNoAnswer = _no_loss) -> Reply:
        """Ask, again and again where that may help. Raises Declined, or a TunesmithError that ends the run."""
        num_tries, wait_s = 0, self._first_wait_s
        while True:
            await self._keep_quiet()
            on_try()
            try:
                return await self._ask_once(question)
            except _AskAnotherWay:
                on_no_answer(False)
            except _TryAgain as trouble:
                on_no_answer(trouble.is_lost)
                num_tries += 1
                if num_tries == MAX_TRIES:
                    raise self._unavailable(f"{trouble} after {MAX_TRIES} tries") from None
                self._pause(trouble, wait_s)
                wait_s *= 2
            except TunesmithError as error:
                on_no_answer(error.code == _BAD_ANSWER)
                raise

    async def _keep_quiet(self) -> None:
        """Wait as long as the teacher has asked anyone of us to."""
        while (left_s := self._quiet_until_s - monotonic_s()) > 0:
            await asyncio.sleep(left_s)

    def _pause(self, trouble: _TryAgain, wait_s: float) -> None:
        asked_s = trouble.wait_s
        if asked_s is not None and asked_s > MAX_WAIT_S:
            raise self._unavailable(f"{trouble}, and asks to wait {asked_s:,.0f} seconds")
        wait_s = wait_s if asked_s is None else asked_s
        log.info("teacher: %s; waiting %.1f s", trouble, wait_s)
        self._quiet_until_s = max(self._quiet_until_s, monotonic_s() + wait_s)

    async def _ask_once(self, question: Question) -> Reply:
        status, headers, content = await self._post(self._body(question))
        if status == 200:
            return self._reply(question, content)
        trouble = self._trouble(content, status)
        if status == 400 and self._adapts_to(trouble):
            raise _AskAnotherWay
        if trouble.code in _DECLINING_CODES:
            # Azure bills prompts that its filter or the length refuses.
            what = f"The teacher declined: {trouble.message}"
            raise Declined("teacher_declined", what, (question.bound[0], 0), is_estimated=True)
        if status in (408, 409, 429) or status >= 500:
            if trouble.code == _QUOTA_CODE:
                raise Unavailable(
                    f"The teacher's account has no quota left: {trouble.message}",
                    code="teacher_quota",
                    mend="Add to it, or raise its limit, and resume.",
                )
            what, is_lost = f"it answers {status} ({trouble.message})", status in _LOST_STATUSES
            raise _TryAgain(what, _retry_after_s(headers), is_lost=is_lost)
        raise self._refusal(status, headers, trouble)

    def _body(self, question: Question) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": question.messages}
        body[self._length_field] = question.max_tokens
        optional = {"temperature": question.temperature, "seed": question.seed}
        return body | {name: value for name, value in optional.items() if name not in self._left_out}

    async def _post(self, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        try:
            async with self._http.stream("POST", self._url, json=body) as response:
                content = bytearray()
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        raise self._no_chat_server(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")
                return response.status_code, response.headers, bytes(content)
        except _NOT_SENT as error:
            raise _TryAgain(f"no connection ({error or type(error).__name__})", is_lost=False) from None
        except httpx.TransportError as error:
            raise _TryAgain(f"no answer ({type(error).__name__})", is_lost=True) from None
        except httpx.DecodingError:
            raise self._no_chat_server("an answer in a broken encoding") from None

    def _reply(self, question: Question, content: bytes) -> Reply:
        try:
            completion = msgspec.json.decode(content, type=_Completion)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._malformed(question, content) from None
        if not completion.choices:
            raise self._malformed(question, content)
        self._num_malformed = 0
        choice, usage = completion.choices[0], completion.usage
        text = choice.message.content or ""
        prompt_tokens = max(0, usage.prompt_tokens) if usage else question.bound[0]
        length_tokens = min(question.max_tokens, len(text.encode()) // 3 + 1)
        completion_tokens = max(0, usage.completion_tokens) if usage else length_tokens
        if choice.message.refusal or choice.finish_reason == "content_filter":
            what = f"The teacher declined: {choice.message.refusal or 'its content filter stopped it'}"
            tokens = prompt_tokens, completion_tokens
            raise Declined("teacher_declined", what, tokens, is_estimated=usage is None)
        return Reply(
            text=text,
            finish_reason=choice.finish_reason or "stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            is_estimated=usage is None,
        )

    def _malformed(self, question: Question, content: bytes) -> Exception:
        """One such answer costs a candidate, and about the most that it can have taken; several in a row are no
        accident."""
        self._num_malformed += 1
        shown = self._masked(content[:80].decode("utf-8", "replace"))
        if self._num_malformed >= MAX_MALFORMED_IN_A_ROW:
            return self._no_chat_server(f"{shown!r}")
        what = f"The teacher's answer is no chat completion: {shown!r}"
        return Declined("malformed_answer", what, question.bound, is_estimated=True)

    def _adapts_to(self, trouble: _Trouble) -> bool:
        """Some models take other parameters, and say so: the rest of the run then asks their way."""
        named = trouble.param or ""
        if self._length_field == "max_tokens" and "max_completion_tokens" in trouble.message:
            self._length_field = "max_completion_tokens"
            return True
        if named in _OPTIONAL and named not in self._left_out:
            self._left_out.add(named)
            return True
        return False

    def _trouble(self, content: bytes, status: int) -> _Trouble:
        """The teacher's own words, without our key in them."""
        try:
            error = msgspec.json.decode(content, type=_TroubleBody).error
        except (msgspec.MsgspecError, UnicodeDecodeError):
            error = _Trouble(message=f"HTTP status {status}")
        trouble = _Trouble(message=error) if isinstance(error, str) else error
        return msgspec.structs.replace(trouble, message=self._masked(trouble.message)[:500])

    def _refusal(self, status: int, headers: httpx.Headers, trouble: _Trouble) -> TunesmithError:
        if 300 <= status < 400:
            where = headers.get("location", "elsewhere")
            return InvalidRequest(
                f"The teacher's address sends us on to {where[:200]!r}, and redirects are not followed.",
                code="teacher_redirects",
                param="teacher.base_url",
                mend="Give the address that answers itself.",
            )
        if status == 401:
            return Unauthenticated(
                f"The teacher does not accept the key: {trouble.message}",
                code="teacher_unauthorized",
                param="teacher.api_key",
                mend="Check the key and whose it is; the run can be resumed with another.",
            )
        if status == 403:
            return Forbidden(
                f"The teacher does not allow this key to use {self.model!r}: {trouble.message}",
                code="teacher_unauthorized",
                param="teacher.api_key",
                mend="Ask its owner for access; the run can be resumed then.",
            )
        if status in (404, 405):
            return InvalidRequest(
                f"The teacher does not know {self.model!r}, or {self._url} is not its address: {trouble.message}",
                code="teacher_not_found",
                param="teacher.model",
                mend="Check both; most addresses end in /v1.",
            )
        return InvalidRequest(
            f"The teacher refused the request with status {status}: {trouble.message}",
            code="teacher_refused",
            param="teacher",
        )

    def _no_chat_server(self, what: str) -> InvalidRequest:
        return InvalidRequest(
            f"{self._url} does not answer as a chat server does, but with {what}.",
            code="teacher_bad_answer",
            param="teacher.base_url",
            mend="Check the address; most end in /v1.",
        )

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(
            f"The teacher at {self._url} cannot be used now: {what}.",
            code="teacher_unavailable",
            param="teacher.base_url",
            mend="Resume when it answers again: nothing is asked twice.",
        )

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds by ``retry-after-ms`` or ``retry-after`` (a number or a date, RFC 9110 10.2.3); None where unreadable."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        return _until_date_s(headers.get("retry-after", ""))


def _until_date_s(text: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - unix_now_s())
    except ValueError:
        return None

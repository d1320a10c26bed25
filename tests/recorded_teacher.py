"""A teacher for tests: a real HTTP server on this machine that replays what SmolLM2 once answered.

``python tests/recorded_teacher.py`` records anew: it serves the embedded model and asks it. Each line of the recording
is one candidate: the answer to "write a message" and the answer to that message, as whole chat completions.
"""

import json
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.data.generate.plan import make_plan
from tunesmith.data.generate.questions import Question, ask_for_answer, ask_for_prompt, clean_prompt
from tunesmith.data.generate.request import GenerateRequest
from tunesmith.data.generate.sources import Sources

RECORDING = Path(__file__).with_name("teacher_recording.jsonl")
MODEL = "smollm2-135m-instruct"
KEY = "sk-teacher-0123456789abcdef"
TOPICS = (
    "bicycle repair",
    "growing tomatoes",
    "train tickets",
    "a lost library card",
    "baking bread",
    "a noisy neighbour",
)
NUM_RECORDED = 24


@dataclass
class Fault:
    """What the teacher answers once instead: a status, a body and headers."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


def error_body(message: str, code: str | None = None, param: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "t", "param": param, "code": code}}).encode()


class RecordedTeacher:
    """``faults`` come first, one for each call; ``delay_s`` is how long an answer takes.

    ``asked`` counts the calls by the seed they carry, ``answered`` those that got an answer; ``bodies`` and
    ``authorizations`` hold what was sent.
    """

    def __init__(self, base_url: str):
        self.base_url = base_url
        self.faults: deque[Fault] = deque()
        self.delay_s = 0.0
        self.num_posts = 0
        """To any address."""
        self.asked: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.moments_s: list[float] = []
        self._pairs = [json.loads(line) for line in RECORDING.read_text(encoding="utf-8").splitlines()]
        self._pair_of_seed: dict[int, int] = {}
        self._lock = threading.Lock()

    def reply(self, body: dict[str, Any], authorization: str | None) -> Fault:
        with self._lock:
            self.bodies.append(body)
            self.authorizations.append(authorization)
            self.moments_s.append(time.monotonic())
            self.asked[body.get("seed", -1)] += 1
            if self.faults:
                return self.faults.popleft()
            return Fault(200, json.dumps(self._completion(body)).encode())

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        said = body["messages"][-1]["content"]
        if "Tone: " in said:  # asks for a message: each one gets the next recorded one
            number = self._pair_of_seed.setdefault(body.get("seed", -1), len(self._pair_of_seed))
            return dict(self._pairs[number % len(self._pairs)]["prompt"])
        found = next(pair for pair in self._pairs if clean_prompt(content(pair["prompt"])) == said)
        return dict(found["answer"])


def content(completion: dict[str, Any]) -> str:
    text: str = completion["choices"][0]["message"]["content"]
    return text


@contextmanager
def recorded_teacher() -> Iterator[RecordedTeacher]:
    """Serve the recording on a free port."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    teacher = RecordedTeacher(f"http://127.0.0.1:{server.server_port}/v1")
    server.teacher = teacher  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield teacher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A test that kills the asker breaks connections; anything else is this file's own bug."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        teacher: RecordedTeacher = self.server.teacher  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        teacher.num_posts += 1
        if self.path != "/v1/chat/completions":
            self._send(Fault(404, error_body(f"Invalid URL (POST {self.path})", "unknown_url")))
            return
        reply = teacher.reply(body, self.headers["authorization"])
        time.sleep(teacher.delay_s)
        self._send(reply)
        teacher.answered[body.get("seed", -1)] += reply.status == 200

    def _send(self, reply: Fault) -> None:
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not on the test's output."""


def record() -> None:
    """Ask a served model for every candidate and keep its answers as they came."""
    import httpx

    from contract.live_server import live_server

    cache = Path(__file__).parents[1] / ".cache" / "tunesmith" / "models"
    request = GenerateRequest(
        id="gen-record",
        created_at=0,
        rows=NUM_RECORDED,
        max_candidates=10 * NUM_RECORDED,
        seed=1,
        teacher_model=MODEL,
        teacher_url=None,
        topics=TOPICS,
        lengths=("short", "medium"),
    )
    with tempfile.TemporaryDirectory() as folder, RECORDING.open("w", encoding="utf-8") as file:
        (Path(folder) / "models").symlink_to(cache)
        with (
            live_server(Path(folder), engine_threads=1) as server,
            httpx.Client(base_url=server.base_url, headers={"authorization": f"Bearer {server.key}"}) as client,
        ):
            for pair in islice(_pairs(client, request), NUM_RECORDED):
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")


def _pairs(client: Any, request: GenerateRequest) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for slot in make_plan(request, Sources()):
        prompt = _ask(client, ask_for_prompt(slot, request.seed))
        said = clean_prompt(content(prompt))
        if said and said not in seen and "Tone: " not in said:
            seen.add(said)
            yield {"prompt": prompt, "answer": _ask(client, ask_for_answer(slot, said, "", 160, request.seed))}


def _ask(client: Any, question: Question) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "messages": question.messages,
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "seed": question.seed,
    }
    answer: dict[str, Any] = client.post("/chat/completions", json=body, timeout=120).raise_for_status().json()
    return answer


if __name__ == "__main__":
    record()

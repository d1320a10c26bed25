"""A whole server without HTTP: settings, a tiny base model, files, the service and a supervisor to drive by hand."""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer, models, pre_tokenizers

from tunesmith.catalog.models import BaseModel, base_dir
from tunesmith.core.clock import unix_now_s
from tunesmith.core.settings import Settings
from tunesmith.jobs.launchers.local import LocalLauncher
from tunesmith.jobs.service import JobRequest, JobService
from tunesmith.jobs.supervisor import Supervisor
from tunesmith.store.blobs import make_blobs
from tunesmith.store.db import Database
from tunesmith.store.repos.files import FileRepo
from tunesmith.store.tables import EventRow, FileRow, JobRow

TRAINER = Path(__file__).with_name("protocol_trainer.py")
SERVER = Path(__file__).with_name("supervisor_process.py")
DEADLINE_S = 60
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class World:
    """Everything of one installation. ``look_until`` drives the supervisor in this thread."""

    def __init__(self, home: Path, database: Database, url: str, **settings: Any):
        self.settings = Settings(home=home, database_url=url, poll_s=0.02, lease_s=30.0, **settings)
        self.database = database
        self.url = url
        self.blobs = make_blobs(self.settings)
        self.command = (sys.executable, str(TRAINER))
        self.service = JobService(self.settings, database, self.blobs)
        self._launchers: list[LocalLauncher] = []
        self.supervisor = self.new_supervisor()
        _install_tiny_base(self.settings)

    def new_supervisor(self, **settings: Any) -> Supervisor:
        changed = replace(self.settings, **settings)
        launcher = LocalLauncher(1, self.command)
        self._launchers.append(launcher)
        return Supervisor(changed, self.database, self.blobs, launcher)

    def close(self) -> None:
        """End every trainer that still runs."""
        for run_dir in self.settings.runs_dir.glob("*"):
            for launcher in self._launchers:
                launcher.kill(run_dir)
                wait_for(lambda launcher=launcher, run_dir=run_dir: not launcher.is_alive(run_dir))

    def upload(self, num_rows: int = 20, purpose: str = "fine-tune", text: bytes | None = None) -> str:
        return self.put(rows(num_rows) if text is None else text, purpose)

    def put(self, data: bytes, purpose: str) -> str:
        writer = self.blobs.open_writer()
        writer.write(data)
        file_id = "file-" + secrets.token_hex(8)
        facts = writer.commit(file_id)
        with self.database.session() as session:
            FileRepo(session).add(
                FileRow(
                    id=file_id,
                    created_at=unix_now_s(),
                    bytes=facts.num_bytes,
                    filename="rows.jsonl",
                    purpose=purpose,
                    sha256=facts.sha256,
                )
            )
        return file_id

    def create(self, **request: Any) -> JobRow:
        return self.service.create(JobRequest(**({"model": "tiny", "training_file": self.upload()} | request)))

    def create_long(self, **request: Any) -> JobRow:
        """A job of 100 steps in 10 epochs."""
        return self.create(training_file=self.upload(10), n_epochs=10, batch_size=1, **request)

    def events(self, job_id: str) -> list[EventRow]:
        """All events, oldest first."""
        return self.service.events(job_id, limit=10_000)[0][::-1]

    def messages(self, job_id: str) -> list[str]:
        return [event.message for event in self.events(job_id)]

    def run_dir(self, job_id: str) -> Path:
        return self.settings.runs_dir / job_id

    def look_until(self, condition: Callable[[], Any], supervisor: Supervisor | None = None) -> None:
        wait_for(condition, (supervisor or self.supervisor).look)

    def look_until_status(self, job_id: str, status: str) -> JobRow:
        self.look_until(lambda: self.service.get(job_id).status == status)
        return self.service.get(job_id)

    def look_until_step(self, job_id: str, step: int) -> None:
        self.look_until(lambda: any(event.data.get("step") == step for event in self.events(job_id)))

    def trainer_pids(self, job_id: str) -> list[int]:
        """Process ids of all trainers that were ever started for a job."""
        path = self.run_dir(job_id) / "starts.txt"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def events_in_file(self, job_id: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir(job_id) / "events.jsonl").read_bytes().splitlines()]

    def check_no_event_lost_or_twice(self, job_id: str) -> None:
        """Stored trainer events are exactly the file's, in the file's order, but for the last one (``done``)."""
        stored = [event.source_seq for event in self.events(job_id) if event.source == "trainer"]
        written = [event["seq"] for event in self.events_in_file(job_id) if event["type"] != "done"]
        assert stored == written

    @contextmanager
    def server(self, max_running: int = 1) -> Iterator["subprocess.Popen[str]"]:
        """A supervisor in a process of its own."""
        command = [sys.executable, str(SERVER), str(self.settings.home), self.url, str(max_running), *self.command]
        with (self.settings.home / "server.log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()
            process.communicate()


def wait_for(condition: Callable[[], Any], between: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for did not happen")
        between()
        time.sleep(0.01)


def rows(count: int) -> bytes:
    lines = []
    for number in range(count):
        messages = [
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "content": f"Answer {number}."},
        ]
        lines.append(json.dumps({"messages": messages}))
    return ("\n".join(lines) + "\n").encode()


def _install_tiny_base(settings: Settings) -> None:
    """A base model's folder with a byte tokenizer; the protocol trainer needs no weights."""
    folder = base_dir(settings, "tiny")
    folder.mkdir(parents=True)
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 258}
    (folder / "config.json").write_text(json.dumps(config))
    manifest = BaseModel(
        id="tiny", name="Tiny", parameters=1_000, context_tokens=512, created=1, license="x", aliases=("tiny-alias",)
    )
    (folder / "tunesmith.json").write_bytes(msgspec.json.encode(manifest))

"""The main job, end to end, through the official openai SDK: upload, train, watch, chat, compare.

Starts ``tunesmith serve`` on a free loopback port as a child process and stops it at the end. Everything lies where the
server keeps it: ``TUNESMITH_HOME``, or ``~/.tunesmith``. Run again, it finds the files, the job and the tuned model by
what they were made from, and does not train twice. Ctrl-C cancels the training and stops the server.

How the comparison is measured, for base and tuned model alike: each held-out message is asked at temperature 0.
*Exact match* counts the answers that equal the reference. *Token accuracy* is the share of the references' tokens (by
the model's own tokenizer) that the answer has at the same position.
"""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from openai import NotFoundError, OpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob, SupervisedHyperparametersParam
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, track
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

DATA = Path(__file__).parent / "data"
BASE_MODEL = "smollm2-135m-instruct"
SUFFIX = "claims-desk"
HYPERPARAMETERS: SupervisedHyperparametersParam = {"n_epochs": 4, "batch_size": 4, "learning_rate_multiplier": 1.0}
SEED = 1897
LONGEST_ANSWER_TOKENS = 20
QUESTIONS_AT_ONCE = 4
END_WITHIN_S = 30.0

console = Console()


@dataclass(frozen=True)
class Server:
    base_url: str
    home: Path
    process: subprocess.Popen[str]


@dataclass(frozen=True)
class Score:
    """How one model answered the held-out rows."""

    answers: list[str]
    num_exact: int
    num_tokens_right: int
    num_tokens: int


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started_s = time.monotonic()
    try:
        with run_server() as server:
            client = OpenAI(base_url=server.base_url, api_key=read_key(server.home), max_retries=2, timeout=300.0)
            job, is_new = tune(client, server.home)
            if job.status != "succeeded" or job.fine_tuned_model is None:
                console.print(
                    f"The job {job.status}: {job.error.message if job.error else 'no reason given'}", style="red"
                )
                return 1
            compare(client, job.fine_tuned_model, server.home)
    except KeyboardInterrupt:
        console.print("Interrupted: the training is cancelled and the server is stopped.", markup=False)
        return 130
    tell_where(job, is_new, server.home, time.monotonic() - started_s)
    return 0


# The server


@contextmanager
def run_server() -> Iterator[Server]:
    """``tunesmith serve`` as a child on a free port. It has stopped when this ends, however it ends."""
    home = Path(os.environ.get("TUNESMITH_HOME") or Path.home() / ".tunesmith").expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("tunesmith")), "serve", "--port", "0"]
    with (home / "demo-server.log").open("a") as log:
        # Its own session: Ctrl-C reaches this program alone, which then stops things in their order.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        try:
            yield Server(_wait_for_address(process, log.name), home, process)
        finally:
            _stop(process)


def _wait_for_address(process: subprocess.Popen[str], log: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Tunesmith listens on "):
            console.print(line.strip(), markup=False)
            threading.Thread(target=process.stdout.read, daemon=True).start()  # so that its pipe never fills
            return line.removeprefix("Tunesmith listens on ").strip()
        console.print(line.strip(), markup=False, style="dim")
    raise SystemExit(f"The server did not start: {_last_line(Path(log))} (all of it is in {log})")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def read_key(home: Path) -> str:
    """The server's first key, which it leaves in its home for programs of the same user."""
    key = os.environ.get("TUNESMITH_API_KEY") or ""
    deadline_s = time.monotonic() + 5
    while not key and time.monotonic() < deadline_s:
        if (home / "first_key").exists():
            key = (home / "first_key").read_text(encoding="ascii").strip()
        time.sleep(0.05)
    if not key:
        raise SystemExit(f"There is no key in {home / 'first_key'}: set TUNESMITH_API_KEY to one of the server's keys.")
    return key


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# Training


def tune(client: OpenAI, home: Path) -> tuple[FineTuningJob, bool]:
    """The finished job, and whether it was trained just now."""
    recipe = _recipe()
    done = _find_finished_job(client, recipe)
    if done is not None:
        console.print(
            f"Training is skipped: {done.fine_tuned_model} was made from the same data and settings.", markup=False
        )
        return done, False
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=upload_once(client, DATA / "train.jsonl").id,
        validation_file=upload_once(client, DATA / "validation.jsonl").id,
        method={"type": "supervised", "supervised": {"hyperparameters": HYPERPARAMETERS}},
        suffix=SUFFIX,
        seed=SEED,
        metadata={"recipe": recipe},
    )
    console.print(f"Job {job.id}", markup=False)
    try:
        return watch(client, job.id), True
    except BaseException:
        cancel(client, job.id, home)
        raise


def _recipe() -> str:
    """A hash of all that the tuned model is made from."""
    digest = hashlib.sha256()
    for name in ("train.jsonl", "validation.jsonl"):
        digest.update((DATA / name).read_bytes())
    digest.update(json.dumps([BASE_MODEL, SUFFIX, HYPERPARAMETERS, SEED]).encode())
    return digest.hexdigest()


def _find_finished_job(client: OpenAI, recipe: str) -> FineTuningJob | None:
    for job in client.fine_tuning.jobs.list(metadata={"recipe": recipe}):
        if job.status == "succeeded" and job.fine_tuned_model and _model_exists(client, job.fine_tuned_model):
            return job
    return None


def _model_exists(client: OpenAI, name: str) -> bool:
    try:
        client.models.retrieve(name)
    except NotFoundError:
        return False
    return True


def upload_once(client: OpenAI, path: Path) -> FileObject:
    """The file on the server: the one that is there with the same name and bytes, else a new one."""
    content = path.read_bytes()
    for file in client.files.list(purpose="fine-tune"):
        if (file.filename, file.bytes) == (path.name, len(content)) and client.files.content(
            file.id
        ).content == content:
            return file
    return client.files.create(file=path, purpose="fine-tune")


def watch(client: OpenAI, job_id: str) -> FineTuningJob:
    """Show the job's progress until it ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[curve]}"), TimeElapsedColumn())
    seen: set[str] = set()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("waiting", total=None, curve="")
        while True:
            job = client.fine_tuning.jobs.retrieve(job_id)
            _show_new_events(client, job_id, seen, progress, task)
            if job.status in ("succeeded", "failed", "cancelled"):
                return job
            progress.update(task, description=job.status.replace("_", " "))
            time.sleep(0.5)


def _show_new_events(client: OpenAI, job_id: str, seen: set[str], progress: Progress, task: TaskID) -> None:
    for event in reversed(client.fine_tuning.jobs.list_events(job_id, limit=50).data):
        if event.id in seen:
            continue
        seen.add(event.id)
        data = event.data if isinstance(event.data, dict) else {}
        if event.type == "metrics" and "step" in data:
            curve = f"step {data['step']}/{data['total_steps']}  loss {data['train_loss']:.3f}"
            progress.update(task, completed=data["step"], total=data["total_steps"], curve=curve)
        elif "phase" not in data:
            progress.console.print(event.message, markup=False, highlight=False, style="dim")


def cancel(client: OpenAI, job_id: str, home: Path) -> None:
    """Cancel the job and wait until its trainer has ended: that is a process of its own, which outlives the server."""
    client.fine_tuning.jobs.cancel(job_id)
    deadline_s = time.monotonic() + END_WITHIN_S
    while time.monotonic() < deadline_s and _trainer_lives(home / "runs" / job_id / "trainer.lock"):
        time.sleep(0.1)


def _trainer_lives(lock_path: Path) -> bool:
    """A trainer holds its lock as long as it lives."""
    if not lock_path.exists():
        return False
    with lock_path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# The comparison


def compare(client: OpenAI, tuned_model: str, home: Path) -> None:
    """Ask both models the held-out rows and print the table."""
    rows = [json.loads(line)["messages"] for line in (DATA / "heldout.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer = Tokenizer.from_file(str(home / "models" / "base" / BASE_MODEL / "tokenizer.json"))
    references = [row[-1]["content"] for row in rows]
    base = score(ask_all(client, BASE_MODEL, rows), references, tokenizer)
    tuned = score(ask_all(client, tuned_model, rows), references, tokenizer)
    _print_scores(base, tuned, len(rows))
    _print_examples(rows, base, tuned)


def ask_all(client: OpenAI, model: str, rows: list[list[dict[str, str]]]) -> list[str]:
    """The model's answers, in the rows' order."""

    def ask(row: list[dict[str, str]]) -> str:
        reply = client.chat.completions.create(
            model=model,
            messages=row[:-1],  # type: ignore[arg-type]
            temperature=0,
            max_completion_tokens=LONGEST_ANSWER_TOKENS,
        )
        return reply.choices[0].message.content or ""

    with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
        answers = pool.map(ask, rows)
        return list(track(answers, f"asking {model}", len(rows), console=console, transient=True))


def score(answers: list[str], references: list[str], tokenizer: Tokenizer) -> Score:
    """Exact matches, and reference tokens met at their position."""
    num_right = num_tokens = 0
    for answer, reference in zip(answers, references, strict=True):
        wanted = tokenizer.encode(reference, add_special_tokens=False).ids
        given = tokenizer.encode(answer.strip(), add_special_tokens=False).ids
        num_tokens += len(wanted)
        num_right += sum(token == other for token, other in zip(wanted, given, strict=False))
    num_exact = sum(answer.strip() == reference for answer, reference in zip(answers, references, strict=True))
    return Score(answers, num_exact, num_right, num_tokens)


def _print_scores(base: Score, tuned: Score, num_rows: int) -> None:
    table = Table(title=f"{num_rows} held-out messages, temperature 0")
    for heading in ("model", "exact match", "token accuracy (by position)"):
        table.add_column(heading)
    for name, result in (("base", base), ("tuned", tuned)):
        share = result.num_tokens_right / result.num_tokens
        table.add_row(
            name, f"{result.num_exact}/{num_rows}", f"{result.num_tokens_right}/{result.num_tokens} ({share:.0%})"
        )
    console.print(table)


def _print_examples(rows: list[list[dict[str, str]]], base: Score, tuned: Score, num_shown: int = 4) -> None:
    for row, before, after in list(zip(rows, base.answers, tuned.answers, strict=True))[:num_shown]:
        console.print(Text(f"\n{row[1]['content']}", style="bold"))
        for name, text in (("base", before), ("tuned", after), ("reference", row[2]["content"])):
            console.print(Text(f"  {name:<9} {' '.join(text.split())}"), overflow="ellipsis", no_wrap=True)


def tell_where(job: FineTuningJob, is_new: bool, home: Path, took_s: float) -> None:
    """The last words: what was trained, and how to go on."""
    tunesmith = f"{_with_home(home)}{Path(sys.executable).with_name('tunesmith')}"
    trained = f"{job.trained_tokens:,} tokens" if job.trained_tokens else "no tokens"
    trained_s = job.finished_at - job.created_at if job.finished_at else 0
    when = f"trained on {trained} in {trained_s} s" if is_new else f"trained earlier on {trained}, in {trained_s} s"
    lines = [
        "",
        f"Model   {job.fine_tuned_model}: {when}; the demo took {took_s:.0f} s",
        f"Serve   {tunesmith} serve",
        f"Chat    {tunesmith} chat {job.fine_tuned_model} --system '...' 'Somebody stole my bicycle.'",
        f"Home    {home} (models, runs, files, database; demo-server.log)",
        f"Key     {home / 'first_key'}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _with_home(home: Path) -> str:
    return f"TUNESMITH_HOME={home} " if os.environ.get("TUNESMITH_HOME") else ""


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


if __name__ == "__main__":
    sys.exit(main())

"""Documents are read and candidates judged in a process that has a time limit and ends with the server."""

import threading
from pathlib import Path

import pytest

from tunesmith.api.extra import generate_tasks
from tunesmith.api.extra.generate_tasks import GenerateTasks
from tunesmith.core.errors import Conflict, InvalidRequest, TunesmithError, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.data.generate.diagnosis import Doctor
from tunesmith.data.generate.journal import Answered, Asked, Journal
from tunesmith.data.generate.judge import judge_with
from tunesmith.data.generate.questions import Step
from tunesmith.data.generate.request import GenerateRequest
from tunesmith.data.generate.run import create_generation
from tunesmith.data.generate.sources import Sources, read_sources

TEXT = "The mill grinds rye on Mondays and wheat on all other days. " * 3
ROW = '{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The miller."}]}\n'


@pytest.fixture
def tasks(tmp_path: Path) -> GenerateTasks:
    return GenerateTasks(Settings(home=tmp_path))


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_sources_are_those_that_this_process_would_read(tasks: GenerateTasks, tmp_path: Path) -> None:
    seeds, documents = [write(tmp_path, "s.jsonl", ROW)], [(write(tmp_path, "d", TEXT), "mill.txt")]
    assert tasks.read_sources(seeds, documents, 3, tmp_path) == read_sources(seeds, documents, 3)


def test_what_is_wrong_with_them_is_told(tasks: GenerateTasks, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="Line 2") as caught:
        tasks.read_sources([write(tmp_path, "s.jsonl", ROW + "{}\n")], [], 3, tmp_path)
    assert (caught.value.code, caught.value.param) == ("invalid_seeds", "seeds")


def test_reading_without_end_is_ended(tasks: GenerateTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_tasks, "READING_LIMIT_S", 0.01)
    with pytest.raises(InvalidRequest) as caught:
        tasks.read_sources([write(tmp_path, "s.jsonl", ROW)], [], 3, tmp_path)
    assert caught.value.code == "sources_too_slow"


def generation(folder: Path) -> Path:
    request = GenerateRequest(
        id=folder.name,
        created_at=0,
        rows=2,
        max_candidates=4,
        seed=3,
        teacher_model="m",
        teacher_url=None,
        topics=("mills",),
    )
    create_generation(folder, request, Sources())
    with Journal(folder) as journal:
        for slot, answer in enumerate(["The miller grinds rye.", "As an AI language model, I cannot say."]):
            for step, text in (("prompt", f"Who mills number {slot} here?"), ("answer", answer)):
                append(journal, slot, step, text)  # type: ignore[arg-type]
    return folder


def append(journal: Journal, slot: int, step: Step, text: str) -> None:
    journal.append(Asked(slot=slot, step=step, prompt_tokens=9, completion_tokens=9))
    answered = Answered(
        slot=slot, step=step, at=0.0, text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=1
    )
    journal.append(answered)


def test_candidates_are_judged_as_this_process_would(tasks: GenerateTasks, tmp_path: Path) -> None:
    folder = generation(tmp_path / "gen-test")
    filtered = tasks.judge(folder, 2)
    assert filtered == judge_with(Doctor(Settings(home=tmp_path), None))(folder, 2)
    assert [one.slot for one in filtered.kept] == [0]
    assert [drop.rule for drop in filtered.drops] == ["speaks_as_an_ai"]


def test_a_damaged_generation_is_told(tasks: GenerateTasks, tmp_path: Path) -> None:
    folder = generation(tmp_path / "gen-test")
    with (folder / "candidates.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(Conflict) as caught:
        tasks.judge(folder, 2)
    assert caught.value.code == "generation_damaged"


def test_the_servers_end_ends_the_child(tasks: GenerateTasks, tmp_path: Path) -> None:
    folder, raised = generation(tmp_path / "gen-test"), []

    def judge() -> None:
        try:
            tasks.judge(folder, 2)
        except TunesmithError as error:
            raised.append(error)

    thread = threading.Thread(target=judge)
    thread.start()
    while not tasks._children:
        thread.join(0.01)
    tasks.stop()
    thread.join(10)
    with pytest.raises(Unavailable):
        tasks.judge(folder, 2)
    assert [error.code for error in raised] == ["data_task_died"]

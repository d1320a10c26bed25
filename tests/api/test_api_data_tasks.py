"""Work on data files: bounded, told when it fails, and without leftovers."""

import fcntl
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dataset_calls import DEADLINE_S, ROWS, post, when_done
from open_api import opened, settings_in
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from tunesmith.api.extra import data_tasks
from tunesmith.api.extra.data_process import SplitTask
from tunesmith.api.extra.data_tasks import MAX_AWAITED, DataTasks
from tunesmith.api.extra.leftovers import UNLOCKED_S
from tunesmith.core.errors import Unavailable
from tunesmith.core.settings import Settings
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.repos.files import FileRepo

TASK = SplitTask(path="x", out_train="y", out_valid="z", share=0.5, count=None, seed=1)


def services_of(api: TestClient) -> Any:
    return api.app.state.services  # type: ignore[attr-defined]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_mends_at_once_leave_the_server_answering(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    file_id, release = post(api, ROWS), threading.Event()
    tasks = services_of(api).data_tasks
    real_run, num_running = tasks.run, 0

    def wait_and_run(task: object) -> bytes:
        nonlocal num_running
        num_running += 1
        assert release.wait(DEADLINE_S)
        return bytes(real_run(task))

    monkeypatch.setattr(tasks, "run", wait_and_run)
    answers: list[Any] = []

    def mend() -> None:
        answers.append(api.post(f"/api/files/{file_id}/mend", json={"fixes": ["strip"]}))

    threads = [threading.Thread(target=mend) for _ in range(MAX_AWAITED)]
    for thread in threads:
        thread.start()
    until(lambda: num_running == MAX_AWAITED)
    for path, body in (("mend", {"fixes": ["strip"]}), ("split", {})):
        busy = api.post(f"/api/files/{file_id}/{path}", json=body)
        assert (busy.status_code, busy.json()["error"]["code"]) == (429, "data_tasks_busy")
        assert int(busy.headers["retry-after"]) > 0
    assert api.get(f"/api/files/{file_id}").json()["children"] == []
    release.set()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * MAX_AWAITED
    assert api.post(f"/api/files/{file_id}/mend", json={"fixes": ["strip"]}).status_code == 200


def test_a_child_that_dies_before_its_order_is_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = DataTasks()
    children: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start_dead(_command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        child = real([sys.executable, "-c", "raise SystemExit(3)"], **options)
        until(lambda: os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None)
        children.append(child)
        return child

    monkeypatch.setattr(data_tasks.subprocess, "Popen", start_dead)
    with pytest.raises(Unavailable, match="status 3"):
        tasks.run(TASK)
    assert children[0].returncode == 3
    assert not tasks._children


def test_a_failed_check_is_told_each_time_anew(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours: one start, one clear answer for every poll, nothing of its inside."""
    file_id, num_runs = post(api, ROWS), 0

    def break_off(*_arguments: object) -> bytes:
        nonlocal num_runs
        num_runs += 1
        raise ZeroDivisionError("the inside")

    reports = services_of(api).reports
    monkeypatch.setattr(reports._tasks, "run", break_off)
    ask = lambda: api.get(f"/api/files/{file_id}/report")  # noqa: E731
    answers = [when_done(ask) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500] * 3
    assert {answer.json()["error"]["code"] for answer in answers} == {"check_failed"}
    assert "inside" not in answers[0].text
    assert num_runs == 1
    (kept,) = reports._failed.values()
    assert len(traceback.extract_tb(kept.__traceback__)) <= 1


def test_an_error_of_the_system_shows_no_path(
    api: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(*_arguments: object) -> bytes:
        raise OSError(28, "No space left on device", str(settings.home / "cache"))

    file_id = post(api, ROWS)
    monkeypatch.setattr(services_of(api).reports._tasks, "run", fill_disk)
    answer = when_done(lambda: api.get(f"/api/files/{file_id}/report"))
    assert answer.status_code == 500
    assert "No space left on device" in answer.text
    assert str(settings.home) not in answer.text


def test_an_upload_without_a_row_leaves_no_bytes(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_repo: object, _row: object) -> None:
        raise OperationalError("insert", {}, Exception("gone"))

    blobs = services_of(api).settings.blobs_dir
    before = sorted(blobs.rglob("*"))
    monkeypatch.setattr(FileRepo, "add", lose)
    answer = api.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", b"{}")})
    assert answer.status_code == 500
    assert sorted(blobs.rglob("*")) == before


def test_a_start_sweeps_what_nobody_works_at(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with opened(settings) as api:
        file_id = post(api, ROWS)
        when_done(lambda: api.get(f"/api/files/{file_id}/report"))
        sha256 = api.get(f"/api/files/{file_id}").json()["sha256"]
    reports, cache = tmp_path / "cache" / "reports" / sha256, tmp_path / "cache"
    dead = [make(folder, age_s=60) for folder in (cache / ".making-dead", reports / ".making-dead")]
    locked = [make(folder, age_s=7200) for folder in (cache / ".making-live", reports / ".making-live")]
    old = [make(tmp_path / "estimate-old", age_s=7200), make_file(cache / "tokens" / "old.tmp", age_s=7200)]
    young = [make(tmp_path / "estimate-new", age_s=600), make_file(cache / "tokens" / "new.tmp", age_s=600)]
    kept_report = next(path for path in reports.iterdir() if path.name.endswith(("-e", "-n")))
    with held(locked), opened(settings):
        assert [path.exists() for path in dead + old] == [False] * 4
        assert all(path.exists() for path in [*locked, *young, kept_report])
    with opened(settings):
        assert not any(path.exists() for path in locked)


def make(folder: Path, *, age_s: float) -> Path:
    folder.mkdir(parents=True)
    make_file(folder / "half", age_s=age_s)
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def make_file(path: Path, *, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


@contextmanager
def held(folders: list[Path]) -> Iterator[None]:
    """As another server holds them."""
    descriptors = [os.open(folder, os.O_RDONLY) for folder in folders]
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_running_check_is_no_leftover_to_another_server(
    api: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id, release = post(api, ROWS), threading.Event()
    tasks = services_of(api).data_tasks
    real_run = tasks.run
    monkeypatch.setattr(tasks, "run", lambda *arguments: release.wait(DEADLINE_S) and real_run(*arguments))
    assert api.get(f"/api/files/{file_id}/report").status_code == 202
    until(lambda: any(time.time() - path.stat().st_mtime > UNLOCKED_S for path in making(settings)))
    with opened(settings):
        assert making(settings)
    release.set()
    assert when_done(lambda: api.get(f"/api/files/{file_id}/report")).status_code == 200


def making(settings: Settings) -> list[Path]:
    return list((settings.home / "cache" / "reports").glob("*/.making-*"))


def test_what_expires_takes_everything_along_that_was_derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalBlobs, "path", lambda _blobs, _key: None)  # as S3: a copy is made
    settings, cache = settings_in(tmp_path), tmp_path / "cache"
    with opened(settings) as api:
        file_id = post(api, ROWS)
        when_done(lambda: api.get(f"/api/files/{file_id}/report"))
        sha256 = api.get(f"/api/files/{file_id}").json()["sha256"]
        with services_of(api).database.session() as session:
            FileRepo(session).get(file_id).expires_at = 1
    places = [f"{folder}/{sha256}*" for folder in ("reports", "files", "tokens")]
    assert all(list(cache.glob(place)) for place in places)
    with opened(settings):
        until(lambda: not any(list(cache.glob(place)) for place in places))

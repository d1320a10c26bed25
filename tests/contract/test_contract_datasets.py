"""Mended and split files are files like any other to the official SDK; a killed server takes its checks along."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
from job_steps import MODEL, jsonl
from live_server import LiveServer, live_server
from openai import OpenAI

from tunesmith.catalog.fetch import install_base_model
from tunesmith.core.settings import Settings

LIVE_SERVER = str(Path(__file__).with_name("live_server.py"))
CACHE = Path(__file__).parents[2] / ".cache" / "tunesmith"
DEADLINE_S = 120


def own_api(server: LiveServer) -> httpx.Client:
    url = server.base_url.removesuffix("/v1") + "/api"
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {server.key}"}, timeout=DEADLINE_S)


def test_mended_and_split_files_are_files_of_the_sdk(server: LiveServer, client: OpenAI) -> None:
    rows = jsonl(20).splitlines()
    parent = client.files.create(file=("claims.jsonl", b"\n".join([*rows, rows[0], b"{broken"])), purpose="fine-tune")
    with own_api(server) as api:
        mended = api.post(f"/files/{parent.id}/mend", json={"fixes": ["drop_rows", "deduplicate"]}).json()["file"]
        parts = api.post(f"/files/{mended['id']}/split", json={"count": 5}).json()
    made = [mended, parts["train"], parts["valid"]]
    assert [client.files.retrieve(file["id"]).filename for file in made] == [
        "claims.mended.jsonl",
        "claims.mended.train.jsonl",
        "claims.mended.valid.jsonl",
    ]
    listed = {file.id for file in client.files.list(purpose="fine-tune")}
    assert listed >= {file["id"] for file in made}
    train, valid = (client.files.content(parts[side]["id"]).content.splitlines() for side in ("train", "valid"))
    assert (len(train), len(valid)) == (15, 5)
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=parts["train"]["id"], validation_file=parts["valid"]["id"]
    )
    client.fine_tuning.jobs.cancel(job.id)


def test_a_killed_server_takes_its_checks_along_and_the_next_one_begins_again(tmp_path: Path) -> None:
    install_base_model(Settings(home=CACHE), MODEL, print)
    (tmp_path / "models").symlink_to(CACHE / "models")
    first = subprocess.Popen([sys.executable, LIVE_SERVER], env=environ(tmp_path), stdout=subprocess.PIPE)
    with first:
        assert first.stdout is not None
        server = LiveServer(**json.loads(first.stdout.readline()), home=tmp_path, pid=first.pid)
        file_id = upload(server, jsonl(100_000))
        with own_api(server) as api:
            assert api.get(f"/files/{file_id}/report").status_code == 202
        check = wait_for_check(first.pid)
        first.kill()
    wait_until_gone(check)
    with live_server(tmp_path) as second, own_api(second) as api:
        assert not list(tmp_path.rglob(".making-*"))
        api.headers["authorization"] = f"Bearer {server.key}"
        begun = api.get(f"/files/{file_id}/report")
        assert (begun.status_code, begun.json()["object"]) == (202, "dataset.check")
        wait_for_check(second.pid)


def environ(home: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")}
    return own | {"TUNESMITH_HOME": str(home)}


def upload(server: LiveServer, data: bytes) -> str:
    with OpenAI(base_url=server.base_url, api_key=server.key) as client:
        return client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id


def wait_for_check(pid: int) -> psutil.Process:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        for child in psutil.Process(pid).children():
            if any("data_process" in word for word in child.cmdline()):
                return child
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)

"""The README's Python, run as it stands: only address, key and file are those of the test."""

import re
import time
from pathlib import Path

import pytest
from command_line import DEADLINE_S, ServeProcess
from openai import OpenAI

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_example_runs(
    serve_process: ServeProcess, training_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create, use = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    create = create.replace("http://127.0.0.1:8321/v1", serve_process.base_url)
    create = create.replace("sk-...", (serve_process.home / "first_key").read_text().strip())
    create = create.replace("examples/data/train.jsonl", str(training_file))
    names: dict[str, object] = {}
    exec(create, names)
    client, job = names["client"], names["job"]
    assert isinstance(client, OpenAI)
    deadline_s = time.monotonic() + DEADLINE_S
    while client.fine_tuning.jobs.retrieve(job.id).status not in ("succeeded", "failed"):  # type: ignore[attr-defined]
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    exec(use, names)
    client.close()
    status_line = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"succeeded ft:smollm2-135m-instruct:tunesmith:claims-desk:\w{8}", status_line)

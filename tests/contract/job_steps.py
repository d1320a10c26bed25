"""What the contract tests of jobs do again and again."""

import json
import time

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tunesmith.catalog.models import embedded_model

MODEL = embedded_model().id


def wait_until(client: OpenAI, job_id: str, *statuses: str) -> FineTuningJob:
    """The job once it has one of these statuses, or has ended."""
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in (*statuses, "succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"{job_id} is still {job.status}")


def jsonl(count: int) -> bytes:
    """Short conversations as a training file."""
    return b"".join(
        json.dumps(
            {"messages": [{"role": "user", "content": f"code {n}"}, {"role": "assistant", "content": f"Z-{n}"}]}
        ).encode()
        + b"\n"
        for n in range(count)
    )

"""A real process that keeps the trainer's file protocol without a model: what the supervisor's tests drive.

It takes the lock, resumes after its last checkpoint, obeys control.json and writes every file that a trainer
writes. Environment: PROTOCOL_STEP_S (length of a step), PROTOCOL_CRASH (print a complaint and exit 3 at once),
PROTOCOL_DEAF (ignore control.json), PROTOCOL_GARBAGE (write a line that is no event), PROTOCOL_FAIL (end as failed).
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

import msgspec

from tunesmith.core.types import CheckpointData, MetricLine, RunError, RunResult, RunSpec, write_json

KEEP = 3


class Run:
    def __init__(self, run_dir: Path):
        self.dir = run_dir
        self.spec = msgspec.json.decode((run_dir / "spec.json").read_bytes(), type=RunSpec)
        self.step_s = float(os.environ.get("PROTOCOL_STEP_S", "0"))
        self.steps_per_epoch = self.spec.total_steps // self.spec.n_epochs
        self.log, self.seq, self.logged_step = self.open_events()
        self.step = max((int(path.name[5:]) for path in self.checkpoints()), default=0)

    def open_events(self):
        path = self.dir / "events.jsonl"
        whole = path.read_bytes() if path.exists() else b""
        whole = whole[: whole.rfind(b"\n") + 1]
        events = [json.loads(line) for line in whole.splitlines()]
        file = path.open("ab")
        file.truncate(len(whole))
        steps = [event["data"]["step"] for event in events if event["type"] == "metrics"]
        return file, len(events), max(steps, default=0)

    def checkpoints(self) -> list[Path]:
        return sorted((self.dir / "checkpoints").glob("step-*"))

    def say(self, type: str, message: str, data: dict | None = None) -> None:
        self.seq += 1
        event = {"seq": self.seq, "created_at": int(time.time()), "type": type, "message": message, "data": data or {}}
        line = json.dumps(event).encode() + b"\n"
        # In two halves: a reader must never take an unfinished line for a whole one.
        self.log.write(line[:20])
        self.log.flush()
        self.log.write(line[20:])
        self.log.flush()

    def train(self) -> None:
        self.say("phase", "Loading the model", {"phase": "loading"})
        if os.environ.get("PROTOCOL_GARBAGE"):
            self.log.write(b"this is no event\n")
            self.log.flush()
            time.sleep(60)
        while self.step < self.spec.total_steps:
            action = self.read_action()
            if action:
                return self.stop(action)
            self.do_step()
        if os.environ.get("PROTOCOL_FAIL"):
            error = RunError(code="out_of_memory", message="The row of line 3 does not fit.", param="training_file")
            return self.finish("failed", error)
        (self.dir / "results.csv").write_text("step,train_loss\n1,0.5\n")
        self.say("done", "Done")
        return self.finish("succeeded")

    def read_action(self) -> str | None:
        path = self.dir / "control.json"
        if os.environ.get("PROTOCOL_DEAF") or not path.exists():
            return None
        return json.loads(path.read_bytes())["action"]

    def do_step(self) -> None:
        time.sleep(self.step_s)
        self.step += 1
        if self.step > self.logged_step:
            self.say("metrics", "", msgspec.to_builtins(self.metrics()))
        if self.step % self.steps_per_epoch == 0:
            self.write_checkpoint()

    def metrics(self) -> MetricLine:
        is_last = self.step == self.spec.total_steps
        return MetricLine(
            step=self.step,
            total_steps=self.spec.total_steps,
            epoch=self.step / self.steps_per_epoch,
            train_loss=1 / self.step,
            train_mean_token_accuracy=0.5,
            valid_loss=0.27 if self.step % self.spec.eval_every_steps == 0 else None,
            full_valid_loss=0.4 if is_last else None,
            learning_rate=self.spec.learning_rate,
            grad_norm=1.0,
            num_tokens=10,
            num_computed_tokens=8,
            num_supervised_tokens=4,
            step_s=self.step_s,
            remaining_s=100.0,
        )

    def write_checkpoint(self) -> None:
        name = f"checkpoints/step-{self.step:06d}"
        if (self.dir / name).exists():
            return
        removed = self.checkpoints()[: -(KEEP - 1)] if len(self.checkpoints()) >= KEEP else []
        for path in removed:
            path.rename(self.dir / ("removed-" + path.name))
        temporary = self.dir / "checkpoint.tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        (temporary / "adapter_model.safetensors").write_text(f"weights at {self.step}")
        (temporary / "adapter_config.json").write_text(json.dumps({"r": 16, "lora_alpha": 32}))
        (self.dir / name).parent.mkdir(exist_ok=True)
        temporary.rename(self.dir / name)
        data = CheckpointData(
            step=self.step,
            dir=name,
            sha256=f"{self.step:064d}",
            metrics={"train_loss": 1 / self.step, "full_valid_loss": 0.4, "valid_loss": None},
            is_best=self.step == self.steps_per_epoch,
            removed_steps=[int(path.name[5:]) for path in removed],
        )
        self.say("checkpoint", "", msgspec.to_builtins(data))

    def stop(self, action: str) -> None:
        self.write_checkpoint()
        self.finish({"pause": "paused", "cancel": "cancelled"}[action])

    def finish(self, status: str, error: RunError | None = None) -> None:
        tokens = self.step * 10
        result = RunResult(status=status, step=self.step, trained_tokens=tokens, error=error)
        write_json(self.dir / "result.json", result)


def main() -> None:
    run_dir = Path(sys.argv[1])
    with (run_dir / "trainer.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(75)
        with (run_dir / "starts.txt").open("a") as starts:
            starts.write(f"{os.getpid()}\n")
        if os.environ.get("PROTOCOL_CRASH"):
            print("something terrible happened", flush=True)
            sys.exit(3)
        Run(run_dir).train()


main()

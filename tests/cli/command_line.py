"""Run ``tunesmith`` as a person's shell does: a process, its output, its exit status."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

TUNESMITH = str(Path(sys.executable).with_name("tunesmith"))
DEADLINE_S = 300


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")}
    return clean | variables


class CommandLine:
    """``run`` waits for a command, ``start`` leaves it running."""

    def __init__(self, variables: dict[str, str]):
        self.variables = variables

    def run(self, *arguments: str, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TUNESMITH, *arguments],
            input=typed,
            capture_output=True,
            text=True,
            env=environment(**{**self.variables, **variables}),
            timeout=DEADLINE_S,
            check=False,
        )

    def output(self, *arguments: str, typed: str = "") -> str:
        """What a command that must succeed has printed."""
        done = self.run(*arguments, typed=typed)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [TUNESMITH, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**self.variables),
        )


class ServeProcess:
    """``tunesmith serve --port 0``; ``announced`` holds the lines it printed at its start."""

    def __init__(self, home: Path, **variables: str):
        self.home = home
        self._variables = variables
        self.announced: list[str] = []
        self.base_url = ""

    def __enter__(self) -> Self:
        log = (self.home / "serve.log").open("a")
        self.process = subprocess.Popen(
            [TUNESMITH, "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(TUNESMITH_HOME=str(self.home), **self._variables),
        )
        log.close()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.announced.append(line.rstrip("\n"))
            if line.startswith("Ctrl-C"):
                break
        listens = [line for line in self.announced if line.startswith("Tunesmith listens on ")]
        assert listens, (self.home / "serve.log").read_text()
        self.base_url = listens[0].removeprefix("Tunesmith listens on ")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(signal.SIGTERM)

    def stop(self, number: signal.Signals) -> str:
        """Stop it and return what it said; it must end in order."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode == 0, (self.home / "serve.log").read_text()
        return said

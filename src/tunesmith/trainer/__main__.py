"""The trainer process: ``python -m tunesmith.trainer RUN_DIR``.

Exit status: 0 when result.json says how the run ended, 75 when another trainer holds the directory, 143 when a signal
ended it and the same command would go on, else a crash.
"""

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

import msgspec

from tunesmith.core.errors import TunesmithError
from tunesmith.core.types import LOCK_FILE, RESULT_FILE, SPEC_FILE, RunError, RunResult, RunSpec, write_json

BUSY, TERMINATED = 75, 143
_LOCK_TRIES, _LOCK_WAIT_S = 20, 0.05

# Threads that wait spin briefly, then sleep (decision 0001). GNU OpenMP reads it when torch is first imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def main(run_dir: Path) -> int:
    """Run or resume the run in ``run_dir``."""
    rank = int(os.environ.get("RANK", "0"))
    with (run_dir / LOCK_FILE).open("w") as lock:
        if rank == 0 and not _take(lock):
            print(f"another trainer is at work in {run_dir}", file=sys.stderr)  # noqa: T201
            return BUSY
        if (run_dir / RESULT_FILE).exists():
            return 0
        spec = msgspec.json.decode((run_dir / SPEC_FILE).read_bytes(), type=RunSpec)
        result = _run_or_fail(run_dir, spec)
        if result is None:
            return TERMINATED
        if rank == 0:
            write_json(run_dir / RESULT_FILE, result)
    return 0


def _take(lock: TextIO) -> bool:
    """Take the directory's lock. Whoever only asks whether a trainer lives holds it for a moment: hence some tries."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_WAIT_S)
        else:
            return True
    return False


def _run_or_fail(run_dir: Path, spec: RunSpec) -> RunResult | None:
    """The process edge: whatever goes wrong becomes a result that names it."""
    from tunesmith.trainer.start import start_run

    try:
        return start_run(run_dir, spec, _signal_flag())
    except TunesmithError as error:
        return _failed(run_dir, error.code or "trainer_error", str(error), error.param)
    except MemoryError as error:
        return _out_of_memory(run_dir, error)
    except RuntimeError as error:
        if "allocate memory" in str(error) or "out of memory" in str(error):
            return _out_of_memory(run_dir, error)
        raise


def _out_of_memory(run_dir: Path, error: Exception) -> RunResult:
    reason = str(error).splitlines()[0] if str(error) else "the machine has no memory left"
    message = f"The trainer ran out of memory ({reason}). Use shorter rows or a smaller model."
    return _failed(run_dir, "out_of_memory", message)


def _failed(run_dir: Path, code: str, message: str, param: str | None = None) -> RunResult:
    """What was trained since the last checkpoint is lost, and not charged."""
    from tunesmith.trainer.checkpoint import read_state

    state, error = read_state(run_dir), RunError(code=code, message=message, param=param)
    return RunResult(status="failed", step=state.step, trained_tokens=state.trained_tokens, error=error)


def _signal_flag() -> list[bool]:
    """Becomes non-empty at SIGTERM: the run saves a checkpoint and ends, to be started again."""
    flag: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: flag.append(True))
    return flag


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""``tunesmith doctor``: look at the machine and the installation, and say what to do about each finding."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from tunesmith.cli import show
from tunesmith.core.errors import TunesmithError
from tunesmith.core.settings import Settings, load_settings

Verdict = Literal["ok", "warn", "fail"]

OLDEST_PYTHON = (3, 11)
MEMORY_TO_TRAIN_BYTES = 3 * 2**30
MEMORY_TO_SERVE_BYTES = 1 * 2**30
DISK_TO_WORK_BYTES = 5 * 2**30
DISK_TO_START_BYTES = 1 * 2**30
CHILD_TIMEOUT_S = 120


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at: how it is, what was found and what to do about it (empty when nothing)."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""


class Report(msgspec.Struct, frozen=True):
    """``ok`` is false when any finding is a failure."""

    ok: bool
    findings: list[Finding]


def doctor(*, as_json: show.AsJson = False) -> int:
    """Run every check and show the findings; returns 1 when one of them is a failure, else 0."""
    settings = load_settings()
    findings = [check(settings) for check in CHECKS]
    report = Report(all(finding.verdict != "fail" for finding in findings), findings)
    if as_json:
        show.json_object(report)
    else:
        _show_report(report)
    return 0 if report.ok else 1


def _show_report(report: Report) -> None:
    show.table(("check", "", "found", "what to do"), [(f.name, f.verdict, f.found, f.mend) for f in report.findings])
    show.line("Ready." if report.ok else "Not ready: see the lines marked fail.")


def check_python(_settings: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    found = f"{version} at {sys.executable}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("python", "fail", found, "Install Python 3.11 or newer and run make setup.")
    return Finding("python", "ok", found)


def check_torch(_settings: Settings) -> Finding:
    """torch is imported in a child process: the command line itself never loads it."""
    script = "import torch; print(torch.__version__, torch.get_num_threads(), torch.cuda.device_count())"
    done = _python("-c", script)
    if done.returncode != 0:
        return Finding("torch", "fail", _last_line(done.stderr), "Run make setup to install torch again.")
    version, num_threads, num_gpus = done.stdout.split()
    found = f"{version}, {num_threads} threads, {num_gpus} GPUs"
    if int(num_threads) < (os.cpu_count() or 1) and int(num_gpus) == 0:
        return Finding("torch", "warn", found, "Unset OMP_NUM_THREADS to let training use every core.")
    return Finding("torch", "ok", found)


def check_memory(_settings: Settings) -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    found = f"{show.size(free)} free"
    if free < MEMORY_TO_SERVE_BYTES:
        return Finding("memory", "fail", found, "Close programs: chat alone needs about 1 GB.")
    if free < MEMORY_TO_TRAIN_BYTES:
        return Finding(
            "memory", "warn", found, "Training the embedded model may need 3 GB; close programs before a job."
        )
    return Finding("memory", "ok", found)


def check_disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(settings.home)).free
    found = f"{show.size(free)} free at {settings.home}"
    if free < DISK_TO_START_BYTES:
        return Finding("disk", "fail", found, "Free some space, or set TUNESMITH_HOME to another disk.")
    if free < DISK_TO_WORK_BYTES:
        return Finding("disk", "warn", found, "Checkpoints take space; 5 GB is comfortable.")
    return Finding("disk", "ok", found)


def check_home(settings: Settings) -> Finding:
    place = _existing(settings.home)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Finding("home", "fail", f"{settings.home} cannot be written", "Set TUNESMITH_HOME to a folder of yours.")
    return Finding("home", "ok", str(settings.home))


def check_engine(_settings: Settings) -> Finding:
    """llama.cpp's bindings are imported in a child process, as the server does it."""
    done = _python("-c", "import xllamacpp, importlib.metadata as m; print(m.version('xllamacpp'))")
    if done.returncode != 0:
        return Finding("engine", "fail", _last_line(done.stderr), "Run make setup to install xllamacpp again.")
    return Finding("engine", "ok", f"llama.cpp through xllamacpp {done.stdout.strip()}")


def check_models(settings: Settings) -> Finding:
    from tunesmith.catalog.models import is_installed, list_base_models

    installed = [model.id for model in list_base_models(settings) if is_installed(settings, model.id)]
    if not installed:
        return Finding("models", "warn", "no base model yet", "tunesmith models pull; the first serve does it too.")
    return Finding("models", "ok", ", ".join(installed))


def check_database(settings: Settings) -> Finding:
    from tunesmith.store.db import Database

    if not settings.database_url and not (settings.home / "tunesmith.db").exists():
        return Finding("database", "ok", "none yet; the first serve makes it")
    shown = settings.resolved_database_url.rpartition("@")[2]  # never the password
    try:
        database = Database(settings.resolved_database_url)
        database.ping()
        database.close()
    except TunesmithError as error:
        return Finding("database", "fail", str(error), "Check TUNESMITH_DATABASE_URL and that the database runs.")
    return Finding("database", "ok", shown)


def check_server(settings: Settings) -> Finding:
    import httpx

    from tunesmith.cli.client import find_base_url

    address = find_base_url(settings)
    try:
        response = httpx.get(address.removesuffix("/v1") + "/health", timeout=5.0)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return Finding("server", "warn", f"none at {address} ({error})", "Start one with: tunesmith serve")
    if response.is_error:
        return Finding(
            "server", "fail", f"{address} answered {response.status_code}", "Look at the server's own output."
        )
    return Finding("server", "ok", f"answers at {address}")


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    check_python,
    check_torch,
    check_memory,
    check_disk,
    check_home,
    check_engine,
    check_models,
    check_database,
    check_server,
)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=CHILD_TIMEOUT_S
    )


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")

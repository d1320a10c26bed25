"""What every engine's child process has in common: it must not outlive its parent, nor keep a core from others."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h. The kernel then signals this process when the thread that started it ends."""

ENVIRON = {"GOMP_SPINCOUNT": "5000"}
"""To be set when the child starts. llama.cpp's threads meet some hundred times a token, and OpenMP lets them spin long
there: beside two busy processes on two cores an answer then comes at 0.7 tokens/s. With a short spin, then sleep, it is
9, and 74 as before on a quiet machine (docs/lab/LOG.md).
"""


def die_with(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL at the parent's death (Linux), and look whether it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def num_threads_or_all(num_threads: int) -> int:
    """0 means every core that this process may use. llama.cpp's own default counts cores that it may not use."""
    if num_threads:
        return num_threads
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1

"""Time: Unix seconds outside, monotonic seconds for durations."""

import time


def unix_now_s() -> int:
    """Whole seconds since 1970, as every ``created_at`` on the wire."""
    return int(time.time())


def monotonic_s() -> float:
    return time.monotonic()

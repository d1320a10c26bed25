"""Data sets: read, checked, shown as trained, mended, split.

from tunesmith.data import check

report = check("train.jsonl")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.data.doctor import check

__all__ = ["check"]


def __getattr__(name: str) -> Any:
    """``check`` is imported when it is asked for: a trainer reads rows and needs no doctor."""
    if name != "check":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tunesmith.data.doctor import check

    globals()["check"] = check
    return check

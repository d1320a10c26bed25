"""Data sets: read, checked, shown as trained, mended, split."""

from tunesmith.data.doctor import check

__all__ = ["check"]

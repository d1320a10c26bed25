"""One-line logs on stderr: time, level, where, message."""

import logging
import sys


def configure_logging(level: str = "INFO") -> None:
    """Set up the ``tunesmith`` logger of this process; called once, by a process's main."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger("tunesmith")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; ``name`` is its ``__name__``."""
    return logging.getLogger(name)

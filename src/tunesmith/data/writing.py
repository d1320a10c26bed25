"""New files made from a data file: what went wrong is said of the path that was asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(source: Path, out: Path) -> Iterator[None]:
    """Within, errors of the system are about ``out``, as a full disk's is, unless they are about ``source``."""
    try:
        yield
    except OSError as error:
        if error.filename == str(source) or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(out)) from error

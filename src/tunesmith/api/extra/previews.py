"""One row of a file as a model is trained on it. Tokenizers stay loaded: a page asks for row after row."""

import threading
from functools import lru_cache
from pathlib import Path

from tunesmith.api.extra.data_process import ModelFiles
from tunesmith.data.formats import decode_any
from tunesmith.data.preview import Preview, preview
from tunesmith.data.scan import detect_kind


class Previewer:
    """Previews for one model, one at a time: a tokenizer remembers what it has read."""

    def __init__(self, model: ModelFiles):
        self._tokenizer = model.tokenizer()
        self._lock = threading.Lock()

    @classmethod
    @lru_cache(maxsize=4)
    def of(cls, model: ModelFiles) -> "Previewer":
        return cls(model)

    def show(self, path: Path, raw: bytes, line: int) -> Preview:
        """The row ``raw``, which stands at ``line`` of ``path``. Raises DataError for a bad row."""
        row = decode_any(raw, line, detect_kind(path) or "chat")
        with self._lock:
            return preview(row, self._tokenizer, line)

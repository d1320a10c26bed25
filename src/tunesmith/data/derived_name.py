"""Names of files that were made from others."""

import re

MAX_FILENAME_CHARS = 255


def derived_name(filename: str, word: str) -> str:
    """``claims.jsonl`` mended is ``claims.mended.jsonl``, mended again ``claims.mended-2.jsonl``."""
    stem, dot, ending = filename.rpartition(".")
    stem, ending = (stem, dot + ending) if dot else (filename, "")
    again = re.search(rf"\.{word}(?:-(\d{{1,6}}))?$", stem)
    if again:
        stem, word = stem[: again.start()], f"{word}-{int(again.group(1) or 1) + 1}"
    return f"{stem[: MAX_FILENAME_CHARS - len(word) - len(ending) - 1]}.{word}{ending}"

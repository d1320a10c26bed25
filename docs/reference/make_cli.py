"""Write cli.md from the command tree. Run it after a change to a command; a test fails while cli.md is out of date."""

from pathlib import Path

from tunesmith.cli.main import app

INTRODUCTION = """\
# Command line

Written by `docs/reference/make_cli.py` from the commands themselves; do not edit.

The commands speak to a server over HTTP, at `TUNESMITH_BASE_URL` (default: where `tunesmith serve` listens with the
same settings) with the key `TUNESMITH_API_KEY` (default: the one in `first_key` in `TUNESMITH_HOME`). `serve`,
`doctor` and `models pull` need no server; nor do `files check`, `preview`, `mend`, `split` and `estimate` when they are given
a path instead of a file's id, and `data generate` with a teacher elsewhere.

`--json` prints the server's JSON. Piped output has no colours and no bars; tables become tab-separated lines.

| exit status | meaning |
|---|---|
| 0 | done; for `jobs watch`: the job has succeeded, is paused, or you stopped watching |
| 1 | failed: one line on standard error says why and what to do; for `jobs watch`: the job failed or was cancelled; for `files check`: something would stop a job |
| 2 | the command line itself is wrong |
| 130 | interrupted by Ctrl-C |
"""


def write_reference() -> str:
    """The whole page, in Markdown."""
    commands = app.generate_docs(output_format="markdown", heading_level=2)
    return INTRODUCTION + "\n" + commands.rstrip() + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(write_reference(), encoding="utf-8")

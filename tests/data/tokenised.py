"""The table of a file, as a check makes it."""

from pathlib import Path

from tunesmith.data.findings import Sink
from tunesmith.data.scan import scan
from tunesmith.data.token_counter import TokenTally, count_tokens
from tunesmith.data.token_table import TokenTable
from tunesmith.data.tokens import RowTokenizer


def tokenise_file(
    path: Path, tokenizer: RowTokenizer, *, limit: int, sink: Sink | None = None, num_processes: int = 0
) -> TokenTable:
    with count_tokens(path, tokenizer, limit, num_processes=num_processes) as counter:
        tally = TokenTally(counter)
        done = []
        for batch in scan(path):
            tally.add(batch)
            done += tally.due()
        done += tally.rest()
    for finding in (finding for _, findings in done for finding in findings):
        if sink is not None:
            sink(finding)
    return tally.table()

"""Judging a generation from its folder alone, so that any process can do it: the server's own must not compute."""

from collections.abc import Callable
from pathlib import Path

from tunesmith.data.generate.diagnosis import Doctor
from tunesmith.data.generate.filter import Filtered, filter_candidates
from tunesmith.data.generate.request import read_request
from tunesmith.data.generate.sources import read_kept_sources
from tunesmith.data.generate.state import State

Judge = Callable[[Path, int], Filtered]
"""Takes a generation's folder and the number of slots to judge."""


def judge_with(doctor: Doctor) -> Judge:
    """A judge in this process. It raises Conflict for a damaged generation."""

    def judge(folder: Path, limit: int) -> Filtered:
        sources = read_kept_sources(folder)
        system = sources.system_for(read_request(folder).system)
        return filter_candidates(State.read(folder), limit, sources.seeds, system, doctor)

    return judge

"""Packing and the schedule, as properties of any rows."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.steps import micro_batches, num_distinct_tokens, step_rows, steps_per_epoch
from tunesmith.data.tokens import TokenSequence
from tunesmith.trainer.batch import pack
from tunesmith.trainer.schedule import learning_rate

Rows = list[list[int]]
some_rows = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=9), min_size=1, max_size=7)


def sequences(rows: Rows) -> list[TokenSequence]:
    return [TokenSequence.of(n, ids, [False] + [True] * (len(ids) - 1)) for n, ids in enumerate(rows, start=1)]


@given(some_rows)
def test_each_row_sees_itself_and_nothing_else(rows: Rows) -> None:
    """What a supervised token's source may see, in order, is the row up to there; every distinct prefix stands once."""
    batch = pack(sequences(rows))
    ids, ends = batch.token_ids_T.tolist(), batch.subtree_end_T.tolist()
    found = []
    for source, target, row in zip(batch.source_S.tolist(), batch.target_S.tolist(), batch.row_S.tolist(), strict=True):
        seen = [j for j in range(source + 1) if source < ends[j]]
        assert [batch.position_ids_T[j].item() for j in seen] == list(range(len(seen)))
        found.append((row, [ids[j] for j in seen] + [target]))
    expected = [(row, ids[: t + 1]) for row, ids in enumerate(rows) for t in range(1, len(ids))]
    assert sorted(found) == sorted(expected)
    assert len(ids) == len({tuple(row[:t]) for row in rows for t in range(1, len(row))})
    assert len(ids) == num_distinct_tokens(sequences(rows))


@given(some_rows, st.integers(1, 20))
def test_micro_batches_hold_every_row_once(rows: Rows, max_tokens: int) -> None:
    pieces = list(micro_batches(sequences(rows), max_tokens))
    lines = sorted(sequence.line for piece in pieces for sequence in piece)
    assert lines == list(range(1, len(rows) + 1))


def test_a_prefix_larger_than_the_budget_is_still_shared() -> None:
    rows = [list(range(100)) + [200 + n] * 5 for n in range(8)]
    pieces = list(micro_batches(sequences(rows), 20))
    assert len(pieces) == 2, "four rows of five tokens each fill a budget of twenty"
    computed = sum(len(pack(piece).token_ids_T) for piece in pieces)
    assert computed < 2 * 100 + 8 * 5


def test_without_a_prefix_the_budget_bounds_a_piece() -> None:
    rows = [[n] * 10 for n in range(9)]
    assert [len(piece) for piece in micro_batches(sequences(rows), 30)] == [3, 3, 3]


@pytest.mark.parametrize(("num_rows", "batch_size"), list(product((1, 7, 24), (1, 4, 30))))
def test_an_epoch_takes_every_row_once(num_rows: int, batch_size: int) -> None:
    steps = steps_per_epoch(num_rows, batch_size)
    epochs = [
        [
            row
            for step in range(first, first + steps)
            for row in step_rows(step, num_rows=num_rows, batch_size=batch_size, seed=3)
        ]
        for first in (1, 1 + steps)
    ]
    assert all(sorted(epoch) == list(range(num_rows)) for epoch in epochs)
    assert num_rows < 7 or epochs[0] != epochs[1]


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(0, 1), (0, 5), (2, 10), (1, 2)])
def test_the_rate_rises_to_its_peak_and_falls(warmup_steps: int, total_steps: int) -> None:
    rates = [
        learning_rate(step, peak=1.0, warmup_steps=warmup_steps, total_steps=total_steps)
        for step in range(1, total_steps + 1)
    ]
    assert max(rates) == 1.0
    assert min(rates) > 0
    top = rates.index(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)

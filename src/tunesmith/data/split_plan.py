"""Which rows are held out: a share of every label, groups of alike rows on one side, the same for the same seed."""

from collections.abc import Hashable, Sequence

import numpy as np

Groups = list[list[int]]


def plan_split(groups: Sequence[int], labels: Sequence[Hashable] | None, num_valid: int, seed: int) -> set[int]:
    """Indices of the rows that are held out: ``num_valid`` of them, or fewer where groups do not fit.

    ``groups`` and ``labels`` have an entry for each row. Rows of one group stay together. Each label gives its share,
    rounded so that the sum is right, and keeps at least one row for training. A group counts under its first row's
    label.
    """
    members = _members(groups, seed)
    strata = _strata(members, labels)
    quotas = _quotas([sum(map(len, stratum)) for stratum in strata], num_valid)
    held_out: set[int] = set()
    for stratum, quota in zip(strata, quotas, strict=True):
        _take(stratum, quota, held_out)
    for stratum in strata:  # what rounding and large groups have left over
        room = _room(stratum, held_out)
        _take(stratum, min(num_valid - len(held_out), room), held_out)
    return held_out


def _members(groups: Sequence[int], seed: int) -> Groups:
    """The rows of each group, groups in random order."""
    rows: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    found = list(rows.values())
    order = np.random.default_rng([seed, 2**32 - 1]).permutation(len(found))
    return [found[index] for index in order]


def _strata(members: Groups, labels: Sequence[Hashable] | None) -> list[Groups]:
    if labels is None:
        return [members]
    strata: dict[Hashable, Groups] = {}
    for group in members:
        strata.setdefault(labels[group[0]], []).append(group)
    return list(strata.values())


def _quotas(sizes: list[int], num_valid: int) -> list[int]:
    """Each stratum's share of ``num_valid``: rounded down, the largest remainders up; never all of its rows."""
    total = sum(sizes)
    exact = [num_valid * size / total for size in sizes]
    quotas = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda index: quotas[index] - exact[index])
    for index in by_remainder[: num_valid - sum(quotas)]:
        quotas[index] += 1
    return [min(quota, size - 1) for quota, size in zip(quotas, sizes, strict=True)]


def _room(stratum: Groups, held_out: set[int]) -> int:
    """How many more rows a stratum can give and keep one."""
    rows = [row for group in stratum for row in group]
    return len(rows) - 1 - sum(row in held_out for row in rows)


def _take(stratum: Groups, quota: int, held_out: set[int]) -> None:
    """Hold out whole groups, in their order, while they fit into ``quota`` rows."""
    left = quota
    for group in stratum:
        if len(group) <= left and group[0] not in held_out:
            held_out.update(group)
            left -= len(group)

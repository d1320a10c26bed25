"""Texts that say almost the same: found by MinHash, believed only when their true Jaccard similarity is high.

A text is the set of its 8-byte windows after lower-casing and dropping punctuation. 64 permutations in 16 bands of 4
find a pair of similarity 0.8 with probability 0.9998 (1 - (1 - 0.8^4)^16). Sentences that stand in a tenth of the texts
are instructions, not content: they are left out, else all prompts of one form would be near-duplicates.
Source: Broder, "On the resemblance and containment of documents" (1997); Lee et al. (2022), on training data.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import rensa
from numpy.typing import NDArray

from tunesmith.data.read import Progress
from tunesmith.data.sets.repeats import groups_of_equal

THRESHOLD = 0.8
_PERMUTATIONS = 64
_BANDS = 16
_SEED = 42
_WINDOW = 8
_LEAST_BYTES = 24
"""Shorter texts are only compared whole."""
_MOST_BYTES = 20_000
_MAX_LEADERS = 8
"""Different texts of one bucket that a text is compared with."""
_ESTIMATE_ERROR = 0.15
"""Three standard errors of the share of equal numbers in two signatures (0.05 at a similarity of 0.8)."""
_BLOCK_BYTES = 4_000_000
_INSTRUCTION_SHARE = 0.1
_LEAST_INSTRUCTIONS = 5
_SAMPLED_FOR_INSTRUCTIONS = 5_000

_PIECES = re.compile(r"[^\n.!?:]+[\n.!?:]*")
_FOLD = bytes(byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in range(256))

Words = NDArray[np.uint64]


def near_duplicate_groups(texts: Sequence[str], threshold: float = THRESHOLD) -> list[list[int]]:
    """Indices of texts that belong together: equal, or linked by pairs with at least ``threshold`` similarity.

    Only groups of two or more, each ascending, ordered by their first. The same texts give the same groups.
    """
    parent = list(range(len(texts)))
    for index, earlier in near_duplicate_pairs(texts, threshold):
        parent[_root(parent, index)] = _root(parent, earlier)
    groups: dict[int, list[int]] = {}
    for index in range(len(texts)):
        groups.setdefault(_root(parent, index), []).append(index)
    return sorted(group for group in groups.values() if len(group) > 1)


def near_duplicate_pairs(
    texts: Sequence[str], threshold: float = THRESHOLD, *, progress: Progress | None = None
) -> list[tuple[int, int]]:
    """(later index, earlier index) of pairs whose similarity is at least ``threshold``; no pair that others imply.

    Each text that has such a neighbour stands in at least one pair, as far as the bands find it.
    """
    whole = [_fold(text) for text in texts]
    stripped = without_instructions(texts)
    folded = whole if stripped is texts else [_fold(text) for text in stripped]
    parent = list(range(len(texts)))
    pairs = list(_equal_pairs(whole, parent))
    pairs += _similar_pairs(folded, parent, threshold, progress or (lambda _done, _all: None))
    return sorted(pairs)


def jaccard(one: str, other: str) -> float:
    """True similarity of two texts, from 0 to 1; of short ones, whether they are equal."""
    return _jaccard(_fold(one), _fold(other))


def without_instructions(texts: Sequence[str]) -> Sequence[str]:
    """The texts without the sentences and lines that many of them have in common; the same object if there are none."""
    step = max(1, len(texts) // _SAMPLED_FOR_INSTRUCTIONS)
    sample = set(texts[::step])
    counts = Counter(piece for text in sample for piece in set(_pieces(text)))
    least = max(_LEAST_INSTRUCTIONS, _INSTRUCTION_SHARE * len(sample))
    common = {piece for piece, count in counts.items() if count >= least}
    if not common:
        return texts
    return ["".join(piece for piece in _PIECES.findall(text) if piece.strip() not in common) for text in texts]


def _pieces(text: str) -> Iterator[str]:
    return (piece.strip() for piece in _PIECES.findall(text))


def _fold(text: str) -> bytes:
    return b" ".join(text.lower().encode("utf-8", "replace").translate(_FOLD).split())[:_MOST_BYTES]


def _jaccard(one: bytes, other: bytes) -> float:
    if one == other:
        return 1.0
    if min(len(one), len(other)) < _LEAST_BYTES:
        return 0.0
    a, b = _windows(one), _windows(other)
    return len(a & b) / len(a | b)


def _windows(text: bytes) -> set[bytes]:
    return {text[start : start + _WINDOW] for start in range(len(text) - _WINDOW + 1)}


def _equal_pairs(texts: list[bytes], parent: list[int]) -> Iterator[tuple[int, int]]:
    first: dict[bytes, int] = {}
    for index, text in enumerate(texts):
        earlier = first.setdefault(text, index)
        if earlier != index:
            parent[index] = earlier
            yield index, earlier


def _similar_pairs(
    texts: list[bytes], parent: list[int], threshold: float, progress: Progress
) -> Iterator[tuple[int, int]]:
    long = [index for index, text in enumerate(texts) if parent[index] == index and len(text) >= _LEAST_BYTES]
    if len(long) < 2:
        return
    blocks = list(_blocks(texts, long))
    num_steps, signed = len(blocks) + _BANDS, []
    for step, block in enumerate(blocks, start=1):
        signed.append(_signatures([texts[index] for index in block]))
        progress(step, num_steps)
    signatures = np.concatenate(signed)
    comparison = _Comparison([texts[index] for index in long], signatures, threshold)
    for step, band in enumerate(np.split(signatures, _BANDS, axis=1), start=len(blocks) + 1):
        for bucket in groups_of_equal(_keys(band)):
            yield from _linked([int(place) for place in bucket], long, comparison, parent)
        progress(step, num_steps)


class _Comparison:
    """True similarity of texts, looked at only where their signatures allow it, and once for each pair."""

    def __init__(self, texts: list[bytes], signatures: NDArray[np.uint32], threshold: float):
        self._texts = texts
        self._signatures = signatures
        self._threshold = threshold
        self._least_equal = (threshold - _ESTIMATE_ERROR) * _PERMUTATIONS
        self._different: set[tuple[int, int]] = set()

    def are_alike(self, one: int, other: int) -> bool:
        if np.count_nonzero(self._signatures[one] == self._signatures[other]) < self._least_equal:
            return False
        if (one, other) in self._different:
            return False
        if _jaccard(self._texts[one], self._texts[other]) >= self._threshold:
            return True
        self._different.add((one, other))
        return False


def _linked(
    bucket: list[int], indices: list[int], comparison: _Comparison, parent: list[int]
) -> Iterator[tuple[int, int]]:
    """Compare each text of a bucket with the first few different ones before it."""
    leaders: list[int] = []
    for place in bucket:
        index = indices[place]
        for leader in leaders:
            earlier = indices[leader]
            if _root(parent, index) == _root(parent, earlier):
                break
            if comparison.are_alike(place, leader):
                parent[_root(parent, index)] = _root(parent, earlier)
                yield index, earlier
                break
        else:
            if len(leaders) < _MAX_LEADERS:
                leaders.append(place)


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def _blocks(texts: list[bytes], indices: list[int]) -> Iterator[list[int]]:
    """Runs of texts of some megabytes: their windows take eight times that."""
    block: list[int] = []
    num_bytes = 0
    for index in indices:
        block.append(index)
        num_bytes += len(texts[index])
        if num_bytes >= _BLOCK_BYTES:
            yield block
            block, num_bytes = [], 0
    if block:
        yield block


def _signatures(texts: list[bytes]) -> NDArray[np.uint32]:
    """(texts, permutations) the least hash of each text under each permutation."""
    lengths = np.array([len(text) - _WINDOW + 1 for text in texts])
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(_hashes(texts), offsets, _PERMUTATIONS, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _keys(band: NDArray[np.uint32]) -> NDArray[np.int64]:
    """(texts,) one number for each text's part of the signature."""
    keys = np.zeros(len(band), dtype=np.uint64)
    for place in range(band.shape[1]):
        keys = _mixed(keys ^ band[:, place].astype(np.uint64))
    return keys.view(np.int64)


def _hashes(texts: list[bytes]) -> Words:
    """A hash of every 8-byte window of every text, one text after the other; none across two texts."""
    joined = np.frombuffer(b"".join(texts), dtype=np.uint8)
    windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(joined, _WINDOW)).view("<u8")[:, 0]
    ends = np.cumsum([len(text) for text in texts])[:-1]
    across = (ends[:, None] + np.arange(1 - _WINDOW, 0)).ravel()
    return _mixed(np.delete(windows, across))


def _mixed(numbers: Words) -> Words:
    """The finaliser of SplitMix64: every bit of the input reaches every bit of the output."""
    mixed: Words = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))

"""Images that look the same: perceptual hashes that differ in a few bits, and outlines that agree.

The search is exact and needs no comparison of all pairs. Hashes that differ in at most 7 bits differ in at most one bit
in one of their four blocks of 16 bits: candidates are those with the same block, or one that differs in one bit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.statistics.perceptual_hash import Hashes

MAX_BITS = 7
MIN_COSINE = 0.97
_BLOCKS, _BLOCK_BITS = 4, 16
_CANDIDATES = 1 << 20
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def near_pairs(hashes: Hashes, progress: Callable[[int, int], None] | None = None) -> Iterator[Pairs]:
    """Pairs of images that look the same, in blocks; a pair may come more than once.

    Two images do when their hashes differ in at most 7 bits and the cosine of their outlines is at least 0.97. Of
    images with one hash and like outlines, all are paired with the first of them, which alone is compared with the
    images of other hashes. Flat images look like nothing.

    Args:
        hashes: Of n images.
        progress: Called with the blocks done and their total.
    """
    rows = np.flatnonzero(~hashes.flat)
    firsts = yield from _same_hash(hashes, rows)
    bits = hashes.bits[firsts]
    total = _BLOCKS * (_BLOCK_BITS + 1)
    for block in range(_BLOCKS):
        keys = ((bits >> np.uint64(block * _BLOCK_BITS)) & np.uint64((1 << _BLOCK_BITS) - 1)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange((1 << _BLOCK_BITS) + 1))
        for flip in range(_BLOCK_BITS + 1):
            mask = 0 if flip == 0 else 1 << (flip - 1)
            for first, second in _candidates(keys, order, starts, mask):
                near = np.bitwise_count(bits[first] ^ bits[second]) <= MAX_BITS
                found = firsts[first[near]], firsts[second[near]]
                yield _alike(hashes, *found)
            if progress is not None:
                progress(block * (_BLOCK_BITS + 1) + flip + 1, total)


def _same_hash(hashes: Hashes, rows: NDArray[np.int64]) -> Generator[Pairs, None, NDArray[np.int64]]:
    """Pair images of one hash with the first that is like them; the generator returns those first ones, ascending."""
    firsts = []
    while len(rows):
        _, place, member = np.unique(hashes.bits[rows], return_index=True, return_inverse=True)
        first = rows[place][member]
        like = _cosine(hashes, first, rows) >= MIN_COSINE
        like[place] = True
        firsts.append(rows[place])
        follows = like & (first != rows)
        yield first[follows], rows[follows]
        rows = rows[~like]
    return np.sort(np.concatenate(firsts)) if firsts else rows


def _candidates(
    keys: NDArray[np.int64], order: NDArray[np.int64], starts: NDArray[np.int64], mask: int
) -> Iterator[Pairs]:
    """Places whose keys differ in `mask`, each pair once, in blocks of bounded size."""
    places = np.arange(len(keys), dtype=np.int64)
    rank = np.empty_like(places)
    rank[order] = places
    if mask == 0:
        begin, end = rank + 1, starts[keys + 1]
    else:
        other = keys ^ mask
        begin, end = starts[other], np.where(keys < other, starts[other + 1], starts[other])
    counts = end - begin
    ends = np.cumsum(counts)
    cut = 0
    while cut < len(keys):
        base = int(ends[cut - 1]) if cut else 0
        stop = max(int(np.searchsorted(ends, base + _CANDIDATES, side="right")), cut + 1)
        number = counts[cut:stop]
        if number.sum():
            first = np.repeat(places[cut:stop], number)
            within = np.arange(len(first)) - np.repeat(ends[cut:stop] - number - base, number)
            yield first, order[begin[first] + within]
        cut = stop


def _alike(hashes: Hashes, first: NDArray[np.int64], second: NDArray[np.int64]) -> Pairs:
    """The pairs whose outlines agree."""
    like = _cosine(hashes, first, second) >= MIN_COSINE
    return first[like], second[like]


def _cosine(hashes: Hashes, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
    one, other = (hashes.outlines[rows].astype(np.float32) for rows in (first, second))
    norm = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return (one * other).sum(axis=1) / np.maximum(norm, np.float32(1e-9))  # type: ignore[no-any-return]

"""Weighted-vote nearest neighbours: every k and temperature in one pass, bounded memory, one answer on every device.

Shapes: N training and M test rows, D features, C classes, K neighbours, T top classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ibot_cli.evaluate.precision import exact_float32

TOP = 5
PREFERRED_K = 20
PREFERRED_TEMPERATURE = 0.07
_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_CHUNK_ROWS = 256
_CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}  # similarities held at once, at most about 40 bytes each
_FEATURES = 4  # numbers of training features held at once, for each similarity
_DENSE = 8  # where more than one in so many similarities is a candidate, picking them out costs more than it saves


def clamp_ks(ks: Sequence[int], num_train: int) -> tuple[list[int], str | None]:
    """The distinct values of k, ascending, none above the number of training rows, and a note if any was cut."""
    kept = sorted({min(k, num_train) for k in ks})
    cut = sorted({k for k in ks if k > num_train})
    if not cut:
        return kept, None
    return kept, f"k = {', '.join(map(str, cut))} was cut to the {num_train} training images."


def knn_vote(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    ks: Sequence[int],
    temperature: float,
    num_classes: int,
    *,
    device: torch.device | str = "cpu",
    chunk_elements: int | None = None,
) -> dict[int, Tensor]:
    """The classes with most votes, for each k: `nearest`, then `vote`.

    Args:
        train: `[N, D]`, any scale; rows are L2-normalised here.
        train_labels: int64 `[N]`, 0 <= label < C.
        test: `[M, D]`.
        ks: Numbers of neighbours; those above N act like N.
        temperature: > 0; the papers use 0.07.
        num_classes: C.
        device: Where to compute.
        chunk_elements: Similarities held at once; bounds the memory beyond the features.

    Returns:
        k -> int64 `[M, min(5, C)]` on the CPU, most votes first.

    Raises:
        ValueError: There is no training row, or a k or the temperature is not positive.

    Source:
        Wu et al. (arXiv 1805.01978); protocol of DINO (arXiv 2104.14294) and iBOT (arXiv 2111.07832).
    """
    similarity, index = nearest(train, test, max(ks), device=device, chunk_elements=chunk_elements)
    classes = train_labels.to(index.device)[index]
    return vote(similarity, classes, ks, temperature, num_classes, chunk_elements=chunk_elements)


def nearest(
    train: Tensor,
    test: Tensor,
    k: int,
    *,
    device: torch.device | str = "cpu",
    chunk_elements: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The training rows with the largest cosine to each test row.

    Equal similarities are ordered by training index, so the answer depends neither on chunks nor on the device. The
    training rows are read once, chunk by chunk, and never copied as a whole: they may be a memory map.

    Args:
        train: `[N, D]`, any scale, finite.
        test: `[M, D]`, any scale, finite.
        k: Neighbours; above N it acts like N.
        device: Where to compute.
        chunk_elements: Similarities held at once.

    Returns:
        Cosines, float32, and places in `train`, int64, both `[M, min(k, N)]` on `device`, nearest first.

    Raises:
        ValueError: There is no training row, or k is not positive.
    """
    if len(train) == 0 or k < 1:
        raise ValueError(f"{k} neighbours among {len(train)} training rows")
    device = torch.device(device)
    elements = chunk_elements or _CHUNK_ELEMENTS.get(device.type, _CHUNK_ELEMENTS["cpu"])
    rows = max(1, min(_CHUNK_ROWS, elements))
    widest = max(1, min(elements // rows, _FEATURES * elements // train.shape[1]))
    with exact_float32(device):
        queries = functional.normalize(test.to(device, torch.float32), dim=1)
        k = min(k, len(train))
        best = _keys(queries.new_full((len(queries), k), -torch.inf), torch.arange(k, device=device))
        for start, stop in _spans(len(train), k, widest):
            bank = functional.normalize(train[start:stop].to(device, torch.float32), dim=1)
            for some, kept in zip(queries.split(rows), best.split(rows), strict=True):
                _merge(kept, some @ bank.T, start)
        best = best.sort(dim=1, descending=True).values
        return _similarity(best), _INDEX_MASK - (best & _INDEX_MASK)


def vote(
    similarity: Tensor,
    classes: Tensor,
    ks: Sequence[int],
    temperature: float,
    num_classes: int,
    *,
    chunk_elements: int | None = None,
) -> dict[int, Tensor]:
    """The classes with most votes among the neighbours, each of which votes with weight `exp(cosine / temperature)`.

    Equal votes are ordered by class.

    Args:
        similarity: Cosines `[M, K]`, nearest first.
        classes: int64 `[M, K]`, 0 <= class < C, on the same device.
        ks: Numbers of neighbours; those above K act like K.
        temperature: > 0.
        num_classes: C.
        chunk_elements: Votes held at once.

    Returns:
        k -> int64 `[M, min(5, C)]` on the CPU, most votes first.

    Raises:
        ValueError: A k or the temperature is not positive.
    """
    if min(ks) < 1 or temperature <= 0:
        raise ValueError(f"votes of {min(ks)} neighbours at temperature {temperature}")
    elements = chunk_elements or _CHUNK_ELEMENTS.get(similarity.device.type, _CHUNK_ELEMENTS["cpu"])
    rows = max(1, elements // max(num_classes, similarity.shape[1]))
    answers = {k: torch.empty(len(similarity), min(TOP, num_classes), dtype=torch.int64) for k in ks}
    for start in range(0, len(similarity), rows):
        some = similarity[start : start + rows]
        weight = ((some - some[:, :1]).double() / temperature).exp()
        for k, votes in _votes(weight, classes[start : start + rows], sorted(set(ks)), num_classes):
            answers[k][start : start + rows] = _leaders(votes).cpu()
    return answers


def accuracy(predictions: Tensor, labels: Tensor) -> tuple[float, float]:
    """Top-1 and top-5 shares of `[M, T]` ranked classes against int64 `[M]`."""
    hits = predictions == labels.unsqueeze(1)
    return float(hits[:, 0].double().mean()), float(hits.any(dim=1).double().mean())


def _spans(num_rows: int, first: int, widest: int) -> Iterator[tuple[int, int]]:
    """Chunks of the training rows, each as long as all before it: candidates stay few once some rows were seen."""
    start, stop = 0, min(first, widest, num_rows)
    while start < num_rows:
        yield start, stop
        start, stop = stop, min(stop + min(stop, widest), num_rows)


def _merge(best: Tensor, similarity: Tensor, start: int) -> None:
    """Puts the better of the new rows into `best`, int64 `[m, k]` in any order, in place.

    A later row with the same similarity as the worst kept one is no candidate, because its index is larger.
    """
    beyond = ~(similarity <= _similarity(best.amin(dim=1, keepdim=True)))
    row, column = beyond.nonzero(as_tuple=True)
    if len(row) == 0:
        return
    if len(row) * _DENSE > similarity.numel():
        keys = _keys(similarity, start + torch.arange(similarity.shape[1], device=row.device))
    else:
        keys = _side_by_side(row, _keys(similarity[row, column], start + column), len(best))
    best.copy_(torch.cat([best, keys], dim=1).topk(best.shape[1], dim=1, sorted=False).values)


def _side_by_side(row: Tensor, keys: Tensor, num_rows: int) -> Tensor:
    """Keys `[c]` of ascending rows as a table `[m, most of one row]`, filled up with the least key."""
    counts = torch.bincount(row, minlength=num_rows)
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    table = keys.new_full((num_rows, int(counts.max())), torch.iinfo(torch.int64).min)
    table[row, place] = keys
    return table


def _keys(similarity: Tensor, index: Tensor) -> Tensor:
    """One int64 per similarity whose order is: larger similarity first, then smaller training index.

    The bits of a float32 order like an integer, once those of negative numbers are inverted. A plain `topk` would
    choose among equal similarities arbitrarily, and differently on each device. `index` holds the training indices.
    """
    bits = (similarity + 0.0).view(torch.int32)  # + 0.0 makes -0.0 the same as 0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << _INDEX_BITS) | (_INDEX_MASK - index)


def _similarity(keys: Tensor) -> Tensor:
    ordered = (keys >> _INDEX_BITS).int()
    return torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).view(torch.float32)


def _votes(weight: Tensor, classes: Tensor, ks: Sequence[int], num_classes: int) -> Iterator[tuple[int, Tensor]]:
    """Votes `[m, C]` for ascending k, each adding only the neighbours that the one before did not have."""
    votes = weight.new_zeros(len(weight), num_classes)
    done = 0
    for k in ks:
        votes.scatter_add_(1, classes[:, done:k], weight[:, done:k])
        done = max(done, min(k, weight.shape[1]))
        yield k, votes


def _leaders(votes: Tensor) -> Tensor:
    """Classes `[m, T]` with most votes, the lowest class first among equals; quicker than sorting all C."""
    left, leaders = votes.clone(), []
    for _ in range(min(TOP, votes.shape[1])):
        leaders.append(left.argmax(dim=1, keepdim=True))  # the first of equal maxima
        left.scatter_(1, leaders[-1], -1.0)
    return torch.cat(leaders, dim=1)

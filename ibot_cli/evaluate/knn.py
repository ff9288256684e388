"""Weighted-vote nearest neighbours: every k in one pass, bounded memory, the same answer on every device.

Shapes: N training and M test rows, D features, C classes, T top classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ibot_cli.evaluate.precision import exact_float32

TOP = 5
PREFERRED_K = 20
_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_CHUNK_ROWS = 256
_CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}  # similarities held at once, about 40 bytes each


@dataclass(frozen=True, kw_only=True)
class KnnResult:
    """Accuracy of a weighted-vote k-NN, beside what makes it mean something.

    Attributes:
        top1: Share of test images whose class is right, at `k`.
        top5: Share whose class is among the five with most votes (all classes when there are fewer), at `k`.
        k: 20 if it was asked for, else the largest.
        per_k: k to top-1; a k above the number of training images was cut to it.
        num_train: Training images.
        num_test: Test images.
        num_classes: Classes.
        baseline_random: top-1 of the same network with random weights, mean over seeds; None when not measured.
        baseline_random_per_seed: Its values.
        baseline_pixels: top-1 of raw pixels; None when not measured.
        baseline_num_train: Training images of both baselines.
        baseline_num_test: Test images of both baselines.
        split: One sentence on which images are which.
        weights: What was evaluated.
        weights_hash: sha256 of its tensors.
        data: DATA as given.
        fingerprint: sha256 of the data's identity.
        temperature: Votes weigh `exp(similarity / temperature)`.
        notes: What the reader should know.
    """

    top1: float
    top5: float
    k: int
    per_k: Mapping[int, float]
    num_train: int
    num_test: int
    num_classes: int
    baseline_random: float | None
    baseline_random_per_seed: tuple[float, ...] | None
    baseline_pixels: float | None
    baseline_num_train: int | None
    baseline_num_test: int | None
    split: str
    weights: str
    weights_hash: str
    data: str
    fingerprint: str
    temperature: float
    notes: tuple[str, ...] = ()


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
    """The classes with most votes, for each k.

    The k most similar training rows vote with weight `exp(cosine / temperature)`. Equal similarities are ordered by
    training index and equal votes by class, so the answer does not depend on chunks or device.

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
    if len(train) == 0 or min(ks) < 1 or temperature <= 0:
        raise ValueError("knn_vote needs training rows, positive k and a positive temperature")
    device = torch.device(device)
    elements = chunk_elements or _CHUNK_ELEMENTS.get(device.type, _CHUNK_ELEMENTS["cpu"])
    rows = max(1, min(_CHUNK_ROWS, elements))
    answers: dict[int, list[Tensor]] = {k: [] for k in ks}
    with exact_float32(device):
        bank = functional.normalize(train.to(device, torch.float32), dim=1)
        labels = train_labels.to(device)
        for chunk in test.split(rows):
            queries = functional.normalize(chunk.to(device, torch.float32), dim=1)
            similarity, index = _nearest(bank, queries, min(max(ks), len(bank)), max(1, elements // rows))
            weight = ((similarity - similarity[:, :1]).double() / temperature).exp()
            for k, votes in _votes(weight, labels[index], sorted(set(ks)), num_classes):
                answers[k].append(votes.sort(dim=1, descending=True, stable=True).indices[:, :TOP].cpu())
    width = min(TOP, num_classes)
    return {k: torch.cat(parts) if parts else torch.empty(0, width, dtype=torch.int64) for k, parts in answers.items()}


def accuracy(predictions: Tensor, labels: Tensor) -> tuple[float, float]:
    """Top-1 and top-5 shares of `[M, T]` ranked classes against int64 `[M]`."""
    hits = predictions == labels.unsqueeze(1)
    return float(hits[:, 0].double().mean()), float(hits.any(dim=1).double().mean())


def _nearest(bank: Tensor, queries: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Similarities and training indices `[m, k]` of the nearest rows, nearest first."""
    best: Tensor | None = None
    for start in range(0, len(bank), chunk):
        keys = _keys(queries @ bank[start : start + chunk].T, start)
        keys = keys.topk(min(k, keys.shape[1]), dim=1, sorted=False).values
        best = keys if best is None else torch.cat([best, keys], dim=1)
        best = best.topk(min(k, best.shape[1]), dim=1).values
    assert best is not None  # the bank has rows
    return _similarity(best), _INDEX_MASK - (best & _INDEX_MASK)


def _keys(similarity: Tensor, start: int) -> Tensor:
    """One int64 per similarity whose order is: larger similarity first, then smaller training index.

    The bits of a float32 order like an integer, once those of negative numbers are inverted. A plain `topk` would
    choose among equal similarities arbitrarily, and differently on each device.
    """
    bits = (similarity + 0.0).view(torch.int32)  # + 0.0 makes -0.0 the same as 0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    index = torch.arange(start, start + similarity.shape[1], device=similarity.device)
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

"""Numbers about tensors: how large they are part by part, and how far a matrix is from random numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_VECTORS, _ITERATIONS = 8, 10
_PARTS = (  # in the order in which a network uses them
    (r"backbone\.patch_embed\.", "patch embedding"),
    (r"backbone\.cls_token", "class token"),
    (r"backbone\.(masked_embed|mask_token)", "mask token"),
    (r"backbone\.(reg_token|registers?|register_tokens)", "registers"),
    (r"backbone\.(pos_embed|rel_pos_bias)", "positions"),
    (r"backbone\.(?:blocks|layers)\.(\d+)\.(?!blocks|downsample)", "block {0}"),
    (r"backbone\.layers\.(\d+)\.blocks\.(\d+)\.", "stage {0} block {1}"),
    (r"backbone\.layers\.(\d+)\.downsample\.", "stage {0} reduction"),
    (r"(backbone\.(norm|fc_norm)|classifier\.fc_norm)\.", "final norm"),
    (r"head\.mlp\.", "head MLP"),
    (r"head\.mlp2\.", "patch head MLP"),
    (r"head\.last_layer\.", "prototypes"),
    (r"head\.last_layer2\.", "patch prototypes"),
    (r"classifier\.projection\.", "projection"),
    (r"classifier\.", "classifier"),
)
_BLOCKS = next(index for index, (_, part) in enumerate(_PARTS) if part.startswith("block"))


@dataclass(frozen=True, kw_only=True)
class PartStatistics:
    """The tensors of one part of a network together.

    Attributes:
        part: For people: `patch embedding`, `block 3`, `prototypes`.
        tensors: How many.
        parameters: Their elements.
        rms: Root mean square of the finite values; None where there are none.
        smallest: Of the finite values.
        largest: Of the finite values.
        non_finite: Values that are NaN or infinite.
        distance: Euclidean distance to the same part of another network over this one's norm; None without another.
    """

    part: str
    tensors: int
    parameters: int
    rms: float | None
    smallest: float | None
    largest: float | None
    non_finite: int
    distance: float | None


def measure_parts(tensors: Mapping[str, Tensor], other: Mapping[str, Tensor] | None = None) -> list[PartStatistics]:
    """The parts of a network; its blocks in the order of its tensors.

    Args:
        tensors: `backbone.*`, `head.*` of a projection head and `classifier.*`; only floating-point tensors count.
        other: The same of another network, for the distance; what only one of them has is left out of it.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            groups.setdefault(part_of(name), {})[name] = tensor
    order = sorted(groups, key=lambda part: _rank(next(iter(groups[part]))))
    return [_measure(part, groups[part], other) for part in order]


def part_of(name: str) -> str:
    """The part of the network that a tensor belongs to, for people; the beginning of its name where none is known."""
    for pattern, part in _PARTS:
        if match := re.match(pattern, name):
            return part.format(*match.groups())
    return ".".join(name.removeprefix("backbone.").split(".")[:2])


def _rank(name: str) -> int:
    """Place of a tensor's part among the kinds of parts; blocks and what is unknown stay in their order."""
    first = next((index for index, (pattern, _) in enumerate(_PARTS) if re.match(pattern, name)), _BLOCKS)
    return _BLOCKS if "block" in _PARTS[first][1] or "stage" in _PARTS[first][1] else first


def distance(tensors: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float | None:
    """Euclidean distance of two networks over the norm of the first, over what both have; None if that is nothing."""
    pairs = [
        (tensor.detach().double(), other[name].detach().double())
        for name, tensor in tensors.items()
        if name in other and other[name].shape == tensor.shape and tensor.is_floating_point()
    ]
    norm = sum(float(tensor.square().sum()) for tensor, _ in pairs)
    apart = sum(float((tensor - against).square().sum()) for tensor, against in pairs)
    return (apart / norm) ** 0.5 if norm > 0 else None


def root_mean_square(tensor: Tensor) -> float:
    """Of all values, in float64 so that neither large nor tiny ones get lost."""
    return float(tensor.detach().double().square().mean().sqrt())


def structure(matrix: Tensor) -> float:
    """The largest singular value over the one that random numbers of the same size would have.

    It is 1 for independent numbers of any distribution with mean 0 (a little less for small matrices), and grows as
    training writes directions into a matrix.

    Args:
        matrix: `[m, n]`, finite, not all 0.

    Source:
        Bai and Yin (1993): the largest singular value of such a matrix tends to rms * (sqrt(m) + sqrt(n)).
    """
    values = matrix.detach().float()
    rows, columns = values.shape
    scale = root_mean_square(values)
    if columns > rows:
        values = values.T
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(values.shape[1], min(_VECTORS, *values.shape), generator=generator)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(values.T @ (values @ basis)).Q
    largest = float(torch.linalg.matrix_norm(values @ basis, ord=2))
    return largest / (scale * (math.sqrt(rows) + math.sqrt(columns)))


def _measure(part: str, group: Mapping[str, Tensor], other: Mapping[str, Tensor] | None) -> PartStatistics:
    values = [tensor.detach() for tensor in group.values()]
    finite = [tensor[torch.isfinite(tensor)] for tensor in values]
    finite = [tensor for tensor in finite if tensor.numel()]
    count = sum(tensor.numel() for tensor in finite)
    squares = sum(float(tensor.double().square().sum()) for tensor in finite)
    parameters = sum(tensor.numel() for tensor in values)
    apart = None if other is None or count < parameters else distance(group, other)
    return PartStatistics(
        part=part,
        tensors=len(values),
        parameters=parameters,
        rms=(squares / count) ** 0.5 if count else None,
        smallest=min((float(tensor.min()) for tensor in finite), default=None),
        largest=max((float(tensor.max()) for tensor in finite), default=None),
        non_finite=parameters - count,
        distance=apart,
    )

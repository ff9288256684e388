"""Traces that training leaves in weights, and damage that no training leaves; no image is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from ibot_cli.core.heads import Head
from ibot_cli.weights.statistics import root_mean_square, structure

STRUCTURED = 1.1  # random matrices stay below 1.06, those of trained runs are at 1.2 to 5
LARGEST_RMS = 100.0
DEAD = 1e-4
_MAY_BE_ZERO = re.compile(
    r"bias$|tokens?$|masked_embed$|pos_embed$|bias_table$|^classifier\.|running_|num_batches|weight_g$|index$"
)
_BRANCH_ENDS = re.compile(r"\.(attn\.proj|mlp\.fc2)\.weight$")
_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class Signs:
    """How far weights are from where networks start.

    Attributes:
        matrices: Linear and convolutional layers that were looked at, queries, keys and values one by one.
        structure: Median over them of the largest singular value over that of random numbers.
        least: The smallest.
        most: The largest.
        structured: Those above `STRUCTURED`.
        norms: Layer norms.
        untouched_norms: Those whose weights are exactly 1 and biases exactly 0, as at the start.
        norm_shift: Mean distance of their weights from 1 and biases from 0.
        zero_positions: Whether there are position embeddings, and all of them are 0.
    """

    matrices: int
    structure: float | None
    least: float | None
    most: float | None
    structured: int
    norms: int
    untouched_norms: int
    norm_shift: float | None
    zero_positions: bool


def read_signs(backbone: nn.Module) -> Signs:
    """The signs of a backbone whose values are all finite."""
    found = [structure(matrix) for matrix in _matrices(backbone)]
    norms = [
        torch.cat([layer.weight.detach() - 1, layer.bias.detach()])
        for layer in backbone.modules()
        if isinstance(layer, nn.LayerNorm) and layer.weight is not None and layer.bias is not None
    ]
    return Signs(
        matrices=len(found),
        structure=median(found) if found else None,
        least=min(found, default=None),
        most=max(found, default=None),
        structured=sum(value > STRUCTURED for value in found),
        norms=len(norms),
        untouched_norms=sum(not bool(shift.any()) for shift in norms),
        norm_shift=float(torch.cat(norms).abs().mean()) if norms else None,
        zero_positions=any(
            name.endswith("pos_embed") and not bool(value.any()) for name, value in backbone.named_parameters()
        ),
    )


def untrained(signs: Signs) -> bool:
    """Whether norms and matrices are exactly what networks start with."""
    return signs.structured == 0 < signs.matrices and signs.untouched_norms == signs.norms > 0


def find_faults(tensors: Mapping[str, Tensor]) -> list[str]:
    """What is broken in weights, as sentences with numbers; see `ibot_cli.evaluate.inspection.opening`."""
    floating = {name: tensor.detach() for name, tensor in tensors.items() if tensor.is_floating_point()}
    counts = {name: int((~torch.isfinite(tensor)).sum()) for name, tensor in floating.items()}
    bad = {name: count for name, count in counts.items() if count}
    faults = []
    if bad:
        total = sum(tensor.numel() for tensor in floating.values())
        held = f"{sum(bad.values()):,} of {total:,} numbers are NaN or infinite"
        faults.append(f"{held}, in {_tensors(list(bad))}.")
    sound = {name: tensor for name, tensor in floating.items() if name not in bad and tensor.numel()}
    return [*faults, *_flat(sound), *_absurd(sound), *_dead_blocks(sound)]


def prototype_layers(head: Head) -> list[Tensor]:
    """Prototypes `[K, d]` of class tokens and, where they are separate, of patches."""
    return [layer.weight().detach() for layer in (head.last_layer, head.last_layer2) if layer is not None]


def _matrices(backbone: nn.Module) -> list[Tensor]:
    """Weights of a size at which random numbers can be told from others."""
    found: list[Tensor] = []
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            matrix = layer.weight.detach().flatten(1)
            found += matrix.chunk(3) if name.endswith("qkv") else [matrix]
    return [matrix for matrix in found if min(matrix.shape) >= 16 and bool(matrix.any())]


def _flat(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors that are one number where training leaves many; a norm may be all 1."""
    checked = {name: tensor for name, tensor in tensors.items() if not _MAY_BE_ZERO.search(name)}
    flat = {name: tensor for name, tensor in checked.items() if tensor.numel() > 1 and not _varies(tensor)}
    zero = [name for name, tensor in flat.items() if not bool(tensor.any())]
    constant = [name for name, tensor in flat.items() if bool(tensor.any()) and tensor.ndim > 1]
    found = [f"All numbers are 0 in {_tensors(zero)}."] if zero else []
    return [*found, f"All numbers are the same in {_tensors(constant)}."] if constant else found


def _varies(tensor: Tensor) -> bool:
    return not bool((tensor == tensor.flatten()[0]).all())


def _absurd(tensors: Mapping[str, Tensor]) -> list[str]:
    sizes = {name: root_mean_square(tensor) for name, tensor in tensors.items() if tensor.ndim > 1}
    large = {name: size for name, size in sizes.items() if size > LARGEST_RMS and not name.startswith("classifier.")}
    if not large:
        return []
    most = max(large.values())
    return [f"The root mean square is above {LARGEST_RMS:g}, up to {most:.3g}, in {_tensors(list(large))}."]


def _dead_blocks(tensors: Mapping[str, Tensor]) -> list[str]:
    """Branches that add nothing beside the others of the network."""
    ends = {name: root_mean_square(tensor) for name, tensor in tensors.items() if _BRANCH_ENDS.search(name)}
    usual = median(ends.values()) if ends else 0.0
    dead = [name for name, size in ends.items() if 0 < size < DEAD * usual]
    return [f"The weights are below {DEAD:g} of those of the other blocks in {_tensors(dead)}."] if dead else []


def _tensors(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - _LISTED} more tensors" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"

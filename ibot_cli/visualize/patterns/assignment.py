"""Which prototype a network puts each patch into, and how sure it is.

Shapes: B images, N patches (1 for class tokens), K prototypes, d bottleneck, D token width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ibot_cli.core.heads import Head
from ibot_cli.errors import WeightsError
from ibot_cli.evaluate.precision import arithmetic, exact_float32
from ibot_cli.visualize.patterns.collector import Assigned
from ibot_cli.visualize.patterns.result import Kind

_CHUNK_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}  # scores held at once


class Assigner(Protocol):
    """Puts patches into prototypes.

    Attributes:
        num_prototypes: K.
    """

    num_prototypes: int

    def assign(self, images: Tensor) -> Assigned:
        """Images `[B, C, H, W]` on the device to the prototypes of their patches."""


class NetworkAssigner:
    """By a backbone and its head, both on `device` in evaluation mode.

    Args:
        backbone: Images to tokens `[B, 1 + N, D]`, class token first.
        head: The projection head.
        kind: Whose scores: patches or class tokens.
        center: float32 `[K]`.
        temp: Teacher temperature.
        precision: Of the backbone and the head's MLP; the prototypes' scores are always exact.
        description: Of the weights, for messages.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        kind: Kind,
        *,
        center: Tensor,
        temp: float,
        precision: str,
        description: str,
    ) -> None:
        self._backbone, self._head, self._kind = backbone, head, kind
        self._center, self._temp, self._precision = center, temp, precision
        self._description = description
        self.num_prototypes = num_prototypes(head, kind)

    def assign(self, images: Tensor) -> Assigned:
        """See `Assigner`; the prototype is that of the highest raw score.

        Raises:
            WeightsError: A score is not finite.
        """
        bottleneck = bottlenecks(self._backbone, self._head, self._kind, images, self._precision)
        score_of = self._head.patch_logits if self._kind == "patch" else self._head.cls_logits
        center = self._center.to(images.device)
        found = assigned(bottleneck, self.num_prototypes, lambda part: most_likely(score_of(part), center, self._temp))
        if not bool(np.isfinite(found.score).all()):
            raise WeightsError(
                f"The scores of {self._description} are not finite.",
                "Check the weights: the training may have diverged.",
            )
        return found


def assigned(
    vectors: Tensor, num_prototypes: int, choose: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
) -> Assigned:
    """Choose for all vectors `[B, N, d]`, in parts whose scores `[R, K]` fit into memory, in exact float32.

    Args:
        vectors: Of patches.
        num_prototypes: K.
        choose: From vectors `[R, d]` to prototype, score and probability, `[R]` each.
    """
    rows = max(1, _CHUNK_ELEMENTS.get(vectors.device.type, _CHUNK_ELEMENTS["cpu"]) // num_prototypes)
    with exact_float32(vectors.device):
        found = [choose(part) for part in vectors.flatten(0, 1).split(rows)]
    shape = vectors.shape[:2]
    prototype, score, probability = (torch.cat(part).cpu().view(shape).numpy() for part in zip(*found, strict=True))
    return Assigned(prototype, score, probability)


def most_likely(logits: Tensor, center: Tensor, temp: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of scores `[R, K]`: the highest one's place, itself, and its probability once centred, `[R]` each.

    Source:
        The authors choose by raw scores; the probability is the teacher's target, iBOT (arXiv 2111.07832), section 3.2.
    """
    score, prototype = logits.max(dim=1)
    centered = (score - center[prototype]) / temp
    return prototype, score, (centered - ((logits - center) / temp).logsumexp(dim=1)).exp()


def bottlenecks(backbone: nn.Module, head: Head, kind: Kind, images: Tensor, precision: str) -> Tensor:
    """Unit vectors of patches (or of class tokens), float32 `[B, N, d]`."""
    with arithmetic(images.device, precision):
        tokens = backbone(images)
        if kind == "patch":
            return head.patch_bottleneck(tokens[:, 1:]).float()
        return head.bottleneck(tokens[:, :1]).float()


def prototype_weight(head: Head, kind: Kind) -> Tensor:
    """Of the patch or the CLS head, float32 `[K, d]`."""
    return (head.patch_layer if kind == "patch" else head.last_layer).weight()


def num_prototypes(head: Head, kind: Kind) -> int:
    """K of the patch or the CLS head."""
    return len((head.patch_layer if kind == "patch" else head.last_layer).weight_v)


@contextmanager
def evaluating(device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """The modules on `device` in evaluation mode, then in their old mode."""
    modes = [module.training for module in modules]
    for module in modules:
        module.to(device).eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, modes, strict=True):
            module.train(was_training)

"""How differently a network answers to different images: its features, and the scores of its head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from ibot_cli.core.heads import Head

DUPLICATE_COSINE = 0.975
DEFAULT_TEMP = 0.04
_PROTOTYPES_AT_ONCE, _PROTOTYPES_LOOKED_AT = 1024, 4096


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Features of images beside each other.

    Attributes:
        images: n.
        cosine: Mean over pairs of images, of the features as they are.
        centred_cosine: Mean size of it after the mean feature was subtracted; 1 if all lie on a line.
        deviation: Root mean square distance from the mean feature, over the root mean square length.
        effective_rank: Exponential of the entropy of the shares of variance by direction; 0 if nothing varies.

    Source:
        Effective rank: Roy and Vetterli (EUSIPCO 2007), here of the covariance.
    """

    images: int
    cosine: float
    centred_cosine: float
    deviation: float
    effective_rank: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Softmax of a head's class-token scores, each prototype centred over the images.

    Attributes:
        temp: Temperature of the softmax.
        information: What the answer tells about which image it was, in nats: entropy of the mean answer less the mean
            entropy of the answers.
        most: The largest value that it could have: ln of the number of images, or of prototypes if these are fewer.
        marginal_entropy: Entropy of the mean answer over ln K; 1 means that all prototypes are used equally.
        entropy: Mean entropy of an answer over ln K; 1 means that the answers are empty.
        first_choices: Prototypes that are the most probable one of an image.
    """

    temp: float
    information: float
    most: float
    marginal_entropy: float
    entropy: float
    first_choices: float


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Prototypes that point the same way as another.

    Attributes:
        prototypes: K.
        looked_at: How many of them were compared with all.
        share: Of these, those with another at a cosine above `DUPLICATE_COSINE`.
    """

    prototypes: int
    looked_at: int
    share: float


def spread_of(features: Tensor) -> Spread:
    """Of features `[n, D]`, finite, n at least 2."""
    values = features.double()
    centred = values - values.mean(dim=0)
    variances = torch.linalg.svdvals(centred).square()
    varies = float(variances.sum()) > 1e-24 * float(values.square().sum())
    shares = variances / variances.sum() if varies else torch.zeros_like(variances)
    return Spread(
        images=len(values),
        cosine=_mean_cosine(values, sizes=False),
        centred_cosine=_mean_cosine(centred, sizes=True) if varies else 1.0,
        deviation=_ratio(centred.square().sum(), values.square().sum()) ** 0.5,
        effective_rank=float(torch.exp(-torch.xlogy(shares, shares).sum())) if varies else 0.0,
    )


@torch.no_grad()
def answers_of(head: Head, features: Tensor, temp: float | None) -> Answers:
    """What a head says about class tokens `[n, D]`.

    Centring over the images takes the place of the teacher's own centre, so that a head can be compared with one of
    random weights, which has none.
    """
    scores = head.cls_logits(head.bottleneck(features.float())).double()
    probs = torch.softmax((scores - scores.mean(dim=0)) / (temp or DEFAULT_TEMP), dim=-1)
    mean = probs.mean(dim=0)
    marginal, own = _entropy(mean), float(torch.stack([-torch.xlogy(row, row).sum() for row in probs]).mean())
    most = math.log(scores.shape[1])
    return Answers(
        temp=temp or DEFAULT_TEMP,
        information=max(0.0, marginal - own),
        most=math.log(min(scores.shape)),
        marginal_entropy=marginal / most,
        entropy=own / most,
        first_choices=len(probs.argmax(dim=-1).unique()),
    )


def duplicates_of(prototypes: Tensor) -> Duplicates:
    """Of prototypes `[K, d]`; of more than a few thousand, evenly chosen ones are compared with all."""
    directions = functional.normalize(prototypes.float(), dim=-1)
    total = len(directions)
    chosen = torch.linspace(0, total - 1, min(total, _PROTOTYPES_LOOKED_AT)).round().long()
    found = 0
    for rows in chosen.split(_PROTOTYPES_AT_ONCE):
        cosines = directions[rows] @ directions.T
        cosines[torch.arange(len(rows)), rows] = -1
        found += int((cosines.amax(dim=-1) > DUPLICATE_COSINE).sum())
    return Duplicates(prototypes=total, looked_at=len(chosen), share=found / len(chosen))


Measured = TypeVar("Measured", Spread, Answers)


def mean_of(found: Sequence[Measured]) -> Measured:
    """Each number as its mean over several networks that saw the same images."""
    means: dict[str, Any] = {
        field.name: fmean(getattr(each, field.name) for each in found) for field in fields(found[0])
    }
    if "images" in means:
        means["images"] = round(means["images"])
    return type(found[0])(**means)


def _mean_cosine(vectors: Tensor, *, sizes: bool) -> float:
    unit = functional.normalize(vectors, dim=-1)
    cosines = unit @ unit.T
    cosines = cosines.abs() if sizes else cosines
    count = len(vectors)
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if float(whole) > 0 else 0.0


def _entropy(probs: Tensor) -> float:
    return float(-torch.xlogy(probs, probs).sum())

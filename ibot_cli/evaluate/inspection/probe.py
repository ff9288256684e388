"""What a network makes of a few real images, beside networks of the same shape with random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ibot_cli.core.heads import Head
from ibot_cli.data.sources import Source, open_source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError
from ibot_cli.evaluate.features import extract
from ibot_cli.evaluate.inspection.spread import Answers, Spread, answers_of, mean_of, spread_of
from ibot_cli.weights.loaded import LoadedBackbone
from ibot_cli.weights.shapes import build_head

MOST_IMAGES, LEAST_IMAGES = 64, 16
MOST_DRAWS = 3
_WORK = 3e11  # multiplications for the images, and for the draws: all images up to ViT-S at 224 px
WITHOUT_CLASS_TOKEN = ("BEiT", "MAE", "Masked image modelling")  # no loss of theirs reaches it
EMBEDDED = {1: "builtin:digits", 3: "builtin:photos"}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Answers to real images.

    Attributes:
        data: The images, as people call them.
        embedded: Whether nobody named them.
        draws: Networks of random weights that the others are means over.
        pooling: `class token` (or what stands for it), or `mean of the patches` of methods that do not train it.
        features: Of what the pooling gives; None if they are not finite.
        random_features: The same of random weights.
        answers: Of the projection head to class tokens; None without one, and where class tokens are not trained.
        random_answers: The same of random weights, with a random head.
        not_finite: Images whose features hold NaN or infinite numbers.
        predicted: Classes that a classifier puts first for some image; None without a classifier.
    """

    data: str
    embedded: bool
    draws: int
    pooling: str
    features: Spread | None
    random_features: Spread
    answers: Answers | None
    random_answers: Answers | None
    not_finite: int
    predicted: int | None


def probe(loaded: LoadedBackbone, data: str | None = None) -> Probe | str:
    """Look at up to 64 images; fewer where the network is large.

    Args:
        loaded: The network; nothing in it changes.
        data: Images; the embedded photographs (digits for one channel) if None.

    Returns:
        The answers, or why there are none.

    Raises:
        DataError: `data` cannot be read, or has less than two readable images.
    """
    name = data or (EMBEDDED.get(loaded.channels) if loaded.bits == 8 else None)
    if name is None:
        depth = "" if loaded.bits == 8 else f" and {loaded.bits} bits"
        return f"there are no embedded images of {loaded.channels} channels{depth}"
    work = _work(loaded)
    source = open_source(name, channels=loaded.channels, bits=loaded.bits, split="all")
    wanted = max(LEAST_IMAGES, min(MOST_IMAGES, int(_WORK / work)))
    index = np.unique(np.linspace(0, len(source) - 1, min(wanted, len(source))).round().astype(np.int64))
    draws = max(1, min(MOST_DRAWS, int(_WORK / (work * len(index)))))
    pooled = loaded.origin.method in WITHOUT_CLASS_TOKEN
    head = None if pooled else loaded.head
    features = _features(loaded.backbone, loaded, source, index)
    if len(features) < 2:
        raise DataError(f"{name} has less than two readable images; features cannot be compared.", "Name more images.")
    finite = bool(torch.isfinite(features).all())
    random = [_random(loaded, head, source, index, seed) for seed in range(draws)]
    heads = [each for _, each in random if each is not None]
    return Probe(
        data=source.name,
        embedded=data is None,
        draws=draws,
        pooling="mean of the patches" if pooled else "class token",
        features=spread_of(features) if finite else None,
        random_features=mean_of([each for each, _ in random]),
        answers=_answers(head, features, loaded) if finite and head is not None else None,
        random_answers=mean_of(heads) if heads else None,
        not_finite=int((~torch.isfinite(features).all(dim=1)).sum()),
        predicted=_predicted(loaded, features) if finite else None,
    )


class _MeanOfPatches(nn.Module):
    """A backbone whose first token is the mean of the others, where there are any."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.backbone(images)
        return tokens if tokens.shape[1] == 1 else tokens[:, 1:].mean(dim=1, keepdim=True)


def _features(backbone: nn.Module, loaded: LoadedBackbone, source: Source, index: np.ndarray) -> Tensor:
    if loaded.origin.method in WITHOUT_CLASS_TOKEN:
        backbone = _MeanOfPatches(backbone)
    with torch.no_grad():
        return extract(backbone, source, eval_transform(*loaded.preparation), index=index, batch_size=16).cls


def _random(
    loaded: LoadedBackbone, head: Head | None, source: Source, index: np.ndarray, seed: int
) -> tuple[Spread, Answers | None]:
    """A network and a head of the same shapes with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        backbone = loaded.rebuild()
        fresh = None if head is None else _fresh_head(head)
    features = _features(backbone.eval(), loaded, source, index)
    return spread_of(features), None if fresh is None else _answers(fresh, features, loaded)


def _fresh_head(head: Head) -> Head | None:
    relu = any(isinstance(layer, nn.ReLU) for layer in head.mlp)
    named = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    fresh = build_head(named, "relu" if relu else "gelu")
    return None if fresh is None else fresh.eval()


def _answers(head: Head, features: Tensor, loaded: LoadedBackbone) -> Answers:
    return answers_of(head, features, None if loaded.scale is None else loaded.scale.cls_temp)


@torch.no_grad()
def _predicted(loaded: LoadedBackbone, features: Tensor) -> int | None:
    """The features are what the classifier's last layers see."""
    classifier = loaded.classifier
    if classifier is None:
        return None
    scores: Tensor = classifier.head(features if classifier.projection is None else classifier.projection(features))
    return len(scores.argmax(dim=-1).unique())


def _work(loaded: LoadedBackbone) -> float:
    """About how many multiplications an image takes: each parameter once per token.

    Swin's are fewer where its tokens are many, and come to what a stride of 16 pixels would be.
    """
    stride = min(getattr(loaded.backbone, "stride", None) or 16, 16)
    tokens = math.ceil(loaded.image_size / stride) ** 2
    return float(sum(parameter.numel() for parameter in loaded.backbone.parameters()) * tokens)

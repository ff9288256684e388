"""What the sections with images are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ibot_cli.evaluate.labelled_features import StageProgress
from ibot_cli.weights.load import Which

__all__ = ["SampleOptions", "StageProgress"]


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """How many images are shown and looked at; the caps bound time and size of a report on any data.

    Attributes:
        data: DATA in place of the run's own.
        which: Teacher or student.
        precision: `fp32` or `bf16`.
        device: Where to compute.
        workers: Loader processes; 0 loads in this one.
        cache: Whether features may come from and go to the cache.
        seed: Of every choice of images.
        queries: Images in the browser of neighbours.
        neighbours: Of each.
        most_gallery: Images that are searched, at most; a seeded choice of more.
        most_queries: Images that are looked up to find wrong ones among them, at most.
        patterns: Patterns shown.
        members: Of each.
        most_images: Images that patterns are looked for in, at most.
        attention: Images with attention maps.
    """

    data: str | None = None
    which: Which = "teacher"
    precision: str = "fp32"
    device: torch.device | str = "cpu"
    workers: int = 0
    cache: bool = True
    seed: int = 0
    queries: int = 24
    neighbours: int = 8
    most_gallery: int = 2_000
    most_queries: int = 500
    patterns: int = 8
    members: int = 12
    most_images: int = 1_000
    attention: int = 6

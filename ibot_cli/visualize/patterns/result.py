"""What `find_patterns` is asked for and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

Kind = Literal["patch", "cls"]
Order = Literal["population", "confidence", "purity"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, kw_only=True)
class PatternOptions:
    """How to look for patterns.

    Attributes:
        kind: `patch`: patches by the patch head; `cls`: whole images by the class-token head.
        top_k: Members of a pattern that are kept, at most one per image.
        window: Side of the context window around a patch, in patches, odd.
        num_patterns: How many prototypes are shown.
        order: Which come first: those with the most patches, with the highest mean probability, or with the purest
            labels. The latter two ask for a minimal number of patches; see `Patterns.min_count`.
        prototypes: These instead, in this order.
        min_brightness: Patches (or images) that are at most as bright (mean of the largest channel, 0 to 255) are dark
            and left out; below 0 keeps all.
        seed: Of the images whose scores give the centre where the weights have none, and of baselines.
        precision: `fp32` or `bf16`.
        device: Where to compute.
        workers: Loader processes; 0 loads in this one.
        batch_size: Images per forward pass.
    """

    kind: Kind = "patch"
    top_k: int = 36
    window: int = 5
    num_patterns: int = 20
    order: Order = "population"
    prototypes: tuple[int, ...] | None = None
    min_brightness: float = 40.0
    seed: int = 0
    precision: str = "fp32"
    device: torch.device | str = "cpu"
    workers: int = 0
    batch_size: int = 64


@dataclass(frozen=True, kw_only=True)
class Member:
    """One shown patch, or image.

    Attributes:
        index: The image's place in the source.
        path: Where the image is.
        label: Its class, or None.
        row: Of the patch in the grid that the network saw; None for kind `cls`.
        column: Likewise.
        score: Raw score of the prototype.
        probability: Softmax over prototypes of (scores - centre) / teacher temperature.
        box: Of the patch (`cls`: of what the network saw) in pixels of the source image.
        window: Of the context window, likewise; may stick out of what was seen, and of the image.
        seen: What the network saw, likewise.
    """

    index: int
    path: str
    label: int | None
    row: int | None
    column: int | None
    score: float
    probability: float
    box: Box
    window: Box
    seen: Box


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One prototype. A patch stands for a whole image in kind `cls`.

    Attributes:
        prototype: Its number.
        count: All its patches that are not dark.
        share: Of all patches that are not dark.
        probability: Mean over those `count`.
        dark: Its patches that were left out as dark.
        label: The most common class of the `count`, the lowest of equals; None without labels.
        purity: The share of that class among the `count`; None without labels.
        members_label: The most common class of the members, of equals `label`, else the lowest; None without labels.
        members_purity: The share of that class among the members; None without labels.
        members: Best score first, at most one per image; equal scores by image, then row and column.
    """

    prototype: int
    count: int
    share: float
    probability: float
    dark: int
    label: int | None
    purity: float | None
    members_label: int | None
    members_purity: float | None
    members: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True)
class Purity:
    """How well patterns agree with labels.

    Attributes:
        members: Mean over the patterns shown of `Pattern.members_purity`.
        patches: Mean over the patterns shown of `Pattern.purity`.
        overall: Share of all patches whose class is the most common one of their prototype, over all prototypes; it
            grows by itself with the number of prototypes in use.
        used: Prototypes in use.
        num_patterns: Patterns behind the means.
    """

    members: float
    patches: float
    overall: float
    used: int
    num_patterns: int


@dataclass(frozen=True, kw_only=True)
class PurityComparison:
    """The same measure for what patterns must beat, on the same images and with the same rule of selection.

    Attributes:
        trained: Of the weights.
        random: Of random backbones with random heads of the same shapes, one per seed.
        seeds: Those seeds.
        pixels: Of k-means on raw patches, or on raw images for kind `cls`.
        pixels_k: Its centres: as many as the weights use prototypes on these images.
        chance: Share of the largest class among the patches that are not dark.
        chance_members: Mean purity of the members if they were images drawn at random; few members agree by luck.
        num_images: Images measured, at most 2,000.
        top_k: Members per pattern.
    """

    trained: Purity
    random: tuple[Purity, ...]
    seeds: tuple[int, ...]
    pixels: Purity
    pixels_k: int
    chance: float
    chance_members: float
    num_images: int
    top_k: int


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """The patterns of a data set, with the settings that led to them.

    Attributes:
        kind: See `PatternOptions`.
        order: See `PatternOptions`; `chosen` where the prototypes were named.
        window: See `PatternOptions`.
        top_k: See `PatternOptions`.
        min_brightness: See `PatternOptions`.
        min_count: Patches that a prototype needed to be selected: 1, or for the orders `confidence` and `purity` the
            smaller of `top_k` and the median over the prototypes in use.
        num_prototypes: K.
        used: Prototypes with a patch that is not dark.
        num_images: Readable images.
        num_patches: Their patches, dark ones included.
        num_dark: Dark ones.
        grid: Rows and columns of patches; (1, 1) for kind `cls`.
        patterns: At least one, in the chosen order, each with at least one member.
        classes: Names, or None without labels.
        overall_purity: See `Purity.overall`; None without labels.
        purity: Beside baselines, where they were asked for.
        weights: One line for people.
        weights_hash: sha256 of the backbone.
        data: Name of the source.
        fingerprint: SHA-256 of the source.
        unreadable: Images that could not be read: path -> reason.
        warnings: What is not as it should be, such as fewer patterns than were asked for.
        notes: How it was measured, where that needs a word.
    """

    kind: Kind
    order: Literal["population", "confidence", "purity", "chosen"]
    window: int
    top_k: int
    min_brightness: float
    min_count: int
    num_prototypes: int
    used: int
    num_images: int
    num_patches: int
    num_dark: int
    grid: tuple[int, int]
    patterns: tuple[Pattern, ...]
    classes: tuple[str, ...] | None
    overall_purity: float | None
    purity: PurityComparison | None = None
    weights: str
    weights_hash: str
    data: str
    fingerprint: str
    unreadable: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

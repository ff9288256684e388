"""How the tokens of an image become one feature vector.

Shapes: B images, N patches, D token width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ibot_cli.core.backbone import BlockTokens
from ibot_cli.errors import UsageError, WeightsError

CLS = "cls@1"
KINDS = ("cls", "mean", "rawmean")
_ITEM = re.compile(r"(cls|rawmean|mean)([1-9]\d{0,2})?")


@dataclass(frozen=True)
class Pooling:
    """A feature that is a concatenation of parts.

    Attributes:
        text: As the user writes it, such as `cls4+mean`.
        parts: `KIND@k`, in the order of the concatenation; k counts the blocks from the last one, 1.
    """

    text: str
    parts: tuple[str, ...]


def parse_pooling(text: str) -> Pooling:
    """Read a pooling such as `cls`, `cls4`, `cls+mean` or `rawmean`.

    Items are joined by `+`; each is a kind and, if it is to be taken from more than the last block, a number of blocks:

    - `cls`: the class token (for Swin the mean of the tokens) after the final norm,
    - `mean`: the mean of the patch tokens after the final norm,
    - `rawmean`: the mean of the patch tokens before the final norm.

    Several blocks are concatenated, oldest first.

    Raises:
        UsageError: It is not of this form, or a part occurs twice.

    Source:
        The evaluation code of iBOT (arXiv 2111.07832): `cls` for k-NN, `cls4` for linear probes of ViT-S and Swin,
        `cls+mean` for those of ViT-B and ViT-L, `rawmean` is its `--avgpool_patchtokens 1`.
    """
    parts: list[str] = []
    for item in text.split("+"):
        found = _ITEM.fullmatch(item.strip())
        if found is None:
            raise UsageError(
                f"{text!r} is not a pooling: {item.strip()!r} is not cls, mean or rawmean with a number of blocks.",
                "Examples: cls, cls4 (the last four blocks), cls+mean, rawmean.",
            )
        kind, blocks = found[1], int(found[2] or 1)
        parts += [f"{kind}@{block}" for block in range(blocks, 0, -1)]
    if len(set(parts)) < len(parts):
        raise UsageError(f"The pooling {text!r} takes the same feature twice.", "Name each kind once.")
    return Pooling(text, tuple(parts))


def parts_of(poolings: Sequence[str], backbone: nn.Module) -> list[str]:
    """The distinct parts that a backbone must give for these poolings, in a fixed order.

    Raises:
        UsageError: As `parse_pooling`.
        WeightsError: The backbone cannot give them.
    """
    wanted: set[str] = set()
    for text in poolings:
        parts = pooled_parts(text, backbone)
        _check_blocks(text, parts, backbone)
        wanted |= set(parts)
    return sorted(wanted, key=lambda part: (KINDS.index(_kind(part)), -_block(part)))


def pooled_parts(text: str, backbone: nn.Module) -> tuple[str, ...]:
    """The parts of a pooling; of a backbone that has a single feature, always that one."""
    parts = parse_pooling(text).parts
    return (CLS,) if getattr(backbone, "single_feature", False) else parts


def compute_parts(backbone: nn.Module, images: Tensor, parts: Iterable[str]) -> dict[str, Tensor]:
    """All parts in one forward pass.

    Args:
        backbone: Images to tokens, with `last_blocks` if anything but `cls@1` is asked.
        images: `[B, C, H, W]`.
        parts: As `parts_of` gives them.

    Returns:
        Part -> `[B, D]`; `cls@1` is bit for bit the same whatever else is asked.
    """
    parts = list(parts)
    if parts == [CLS]:
        tokens: Tensor = backbone(images)
        return {CLS: tokens[:, 0]}
    blocks = backbone.last_blocks(images, max(map(_block, parts)))  # type: ignore[operator]
    return {part: _pool(_kind(part), blocks[-_block(part)]) for part in parts}


def _pool(kind: str, block: BlockTokens) -> Tensor:
    if kind == "cls":
        return block.cls
    # the mean of many bf16 numbers is taken in float32
    return (block.patches if kind == "mean" else block.raw).float().mean(dim=1)


def _check_blocks(text: str, parts: Sequence[str], backbone: nn.Module) -> None:
    num_blocks = int(getattr(backbone, "num_blocks", 0)) if hasattr(backbone, "last_blocks") else 0
    if num_blocks == 0 and set(parts) != {CLS}:
        raise WeightsError(
            f"The pooling {text} needs the blocks of the network, and this one gives a single feature only.",
            "The pooling that works is cls.",
        )
    most = max(map(_block, parts))
    if most > max(num_blocks, 1):
        raise WeightsError(
            f"The pooling {text} needs {most} blocks, and the network has {num_blocks}.",
            f"With up to {num_blocks} blocks cls, mean and rawmean work, for example cls{num_blocks}.",
        )


def _kind(part: str) -> str:
    return part.partition("@")[0]


def _block(part: str) -> int:
    """1 for the last block."""
    return int(part.partition("@")[2])

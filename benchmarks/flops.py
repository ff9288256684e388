"""How many operations a step needs, and which matrix products it is made of.

Counted are the necessary products: student backbone on global and local crops (after its last attention only class
tokens and masked patches), student head on class tokens and masked patches, teacher backbone on global crops, teacher
MLP on all their tokens, prototypes on class tokens and masked patches. An operation is half a multiply-add. The
backward pass counts twice the student's forward, nothing is recomputed, and everything that is not a matrix product
counts nothing.

Shapes: V global views, L local views, B images, N patches, M masked patches in the batch, D width, d bottleneck,
K prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibot_cli.train.bench.operations import Product


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Networks and batch of one step; the defaults are ViT-S/16 with the published head and crops."""

    images: int
    masked: float
    num_global: int = 2
    num_local: int = 10
    global_size: int = 224
    local_size: int = 96
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 8192

    def tokens(self, size: int) -> int:
        """1 + N of one crop."""
        return 1 + (size // self.patch_size) ** 2


def backbone_flops(work: Workload, crops: int, size: int, wanted: float | None = None) -> float:
    """Forward pass of `crops` crops of side `size`.

    After its last attention only `wanted` tokens of the batch are needed; None needs all of them.
    """
    tokens, width = work.tokens(size), work.width
    rows = crops * tokens
    embed = crops * (tokens - 1) * 3 * work.patch_size**2 * width
    attention = crops * 2 * tokens**2 * width  # scores, and probabilities times values
    before, after = 3 * width**2, 9 * width**2  # qkv 3; output 1, MLP 4 + 4
    last = rows if wanted is None else wanted
    return 2.0 * (embed + work.depth * (rows * before + attention) + ((work.depth - 1) * rows + last) * after)


def mlp_flops(work: Workload, rows: float) -> float:
    """The head up to the bottleneck."""
    return 2.0 * rows * (work.width * work.hidden + work.hidden**2 + work.hidden * work.bottleneck)


def prototype_flops(work: Workload, rows: float) -> float:
    """The head's last layer."""
    return 2.0 * rows * work.bottleneck * work.prototypes


def student_flops(work: Workload) -> float:
    """The student's forward pass."""
    whole, local = work.num_global * work.images, work.num_local * work.images
    rows = whole + local + work.masked
    return (
        backbone_flops(work, whole, work.global_size, whole + work.masked)
        + backbone_flops(work, local, work.local_size, local)
        + mlp_flops(work, rows)
        + prototype_flops(work, rows)
    )


def teacher_flops(work: Workload) -> float:
    """The teacher's forward pass."""
    crops = work.num_global * work.images
    return (
        backbone_flops(work, crops, work.global_size)
        + mlp_flops(work, crops * work.tokens(work.global_size))
        + prototype_flops(work, crops + work.masked)
    )


def step_flops(work: Workload) -> float:
    """One step: the teacher's forward, and three times the student's."""
    return teacher_flops(work) + 3 * student_flops(work)


def baseline_flops(work: Workload) -> float:
    """One step of the baseline, whose heads and prototypes see every token."""
    whole = work.num_global * work.images * work.tokens(work.global_size)
    local = work.num_local * work.images * work.tokens(work.local_size)
    head = [mlp_flops(work, rows) + prototype_flops(work, rows) for rows in (whole, local)]
    teacher_backbone = backbone_flops(work, work.num_global * work.images, work.global_size)
    local_backbone = backbone_flops(work, work.num_local * work.images, work.local_size)
    return teacher_backbone + head[0] + 3 * (teacher_backbone + local_backbone + sum(head))


def step_products(work: Workload) -> list[Product]:
    """The step's larger products with weights: forward, gradient of the input and gradient of the weight of each."""
    width, hidden = work.width, work.hidden
    whole = work.num_global * work.images * work.tokens(work.global_size)
    local = work.num_local * work.images * work.tokens(work.local_size)
    heads = (work.num_global + work.num_local) * work.images + round(work.masked)
    layers = [(rows, width, out) for rows in (whole, local) for out in (3 * width, width, 4 * width)]
    layers += [(rows, 4 * width, width) for rows in (whole, local)]
    for rows in (whole, heads):
        layers += [(rows, width, hidden), (rows, hidden, hidden), (rows, hidden, work.bottleneck)]
    layers += [(heads, work.bottleneck, work.prototypes)]
    products = []
    for rows, inner, columns in layers:
        products += [Product(rows, inner, columns), Product(rows, columns, inner), Product(columns, rows, inner)]
    return list(dict.fromkeys(products))

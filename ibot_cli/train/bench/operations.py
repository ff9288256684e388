"""How many operations a step needs, and which matrix products it is made of, for any network and head.

Counted are the products that the method needs: the student's backbone on its views (after its last attention only class
tokens and masked patches), the student's head on class tokens and masked patches, the teacher's backbone and head as
its targets need them. A multiply-add is two operations. The backward pass counts twice the student's forward; nothing
is recomputed, no path is dropped, and what is no product counts nothing. `benchmarks/flops.py` has it as a formula.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ibot_cli.config.schema import Config
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Network
from ibot_cli.train.build import network_of, stride_of


class Product(NamedTuple):
    """A matrix product `[rows, inner] @ [inner, columns]`."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """2 x multiply-adds."""
        return 2 * self.rows * self.inner * self.columns


@dataclass(frozen=True, kw_only=True)
class Operations:
    """What one forward and backward pass of a micro-batch needs.

    Attributes:
        teacher: Operations of the teacher's forward pass.
        student: Operations of the student's forward pass.
        layers: The products with weights among them, and how often each occurs.
    """

    teacher: int
    student: int
    layers: Counter[Product]

    @property
    def total(self) -> int:
        """The teacher's forward pass and three times the student's."""
        return self.teacher + 3 * self.student

    def largest(self, count: int) -> list[Product]:
        """The products of forward, input gradient and weight gradient of the `count` layers with most work in them."""
        work = sorted(self.layers, key=lambda product: -product.flops * self.layers[product])[:count]
        turned = [
            turn
            for rows, inner, columns in work
            for turn in (Product(rows, inner, columns), Product(rows, columns, inner), Product(columns, rows, inner))
        ]
        return list(dict.fromkeys(turned))


def count_operations(config: Config, images: int, masked: int) -> Operations:
    """Operations of a micro-batch, found on tensors that have shapes but no data.

    Args:
        config: Resolved, at least in everything that decides a shape.
        images: B.
        masked: Masked patches in the batch; ignored without a patch target.
    """
    masks, views, channels = config.objective.patch != "none", config.views, config.data.channels
    with torch.device("meta"):
        student, teacher = (network_of(config, mask_token=token) for token in (masks, False))
    layers: Counter[Product] = Counter()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        student, teacher = student.to_empty(device="cpu"), teacher.to_empty(device="cpu")
        whole = torch.empty(views.num_global * images, channels, views.global_size, views.global_size)
        local = torch.empty(views.num_local * images, channels, views.local_size, views.local_size)
        grid = views.global_size // stride_of(config)
        mask = torch.empty(len(whole), grid**2, dtype=torch.bool) if masks else None
        patches = torch.empty(masked if masks else 0, dtype=torch.int64)
        every = masks and config.objective.balance == "center"
        teacher_flops = _counted(layers, lambda: _teach(teacher, whole, patches, every))
        student_flops = _counted(layers, lambda: _learn(student, whole, local, mask, patches))
    return Operations(teacher=teacher_flops, student=student_flops, layers=layers)


def _teach(network: Network, whole: Tensor, patches: Tensor, every: bool) -> None:
    """The teacher's forward pass; the centre of the patches needs the bottlenecks of them all."""
    head: Head = network.head
    if every:
        cls, patch = head.image_bottlenecks(network.backbone(whole))
        patch = patch.flatten(0, 1).index_select(0, patches)
    else:
        cls, patch = head.bottlenecks(network.backbone(whole, patches=patches), len(whole))
    _score(head, cls, patch)


def _learn(network: Network, whole: Tensor, local: Tensor, mask: Tensor | None, patches: Tensor) -> None:
    """The student's forward pass."""
    head: Head = network.head
    tokens: Tensor = network.backbone(whole, mask, None, patches)
    if len(local):
        tokens = torch.cat([network.backbone(local, None, None, patches[:0]), tokens])
    _score(head, *head.bottlenecks(tokens, len(whole) + len(local)))


def _score(head: Head, cls: Tensor, patch: Tensor) -> None:
    head.cls_logits(cls)
    head.patch_logits(patch)


class _Layers(TorchDispatchMode):
    """Takes note of the shapes of products of two matrices."""

    def __init__(self, found: Counter[Product]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else ""
        if name in ("mm", "addmm"):
            left, right = args[-2:]
            self.found[Product(len(left), *right.shape)] += 1
        return func(*args, **(kwargs or {}))


def _counted(layers: Counter[Product], work: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter, _Layers(layers):
        work()
    return int(counter.get_total_flops())

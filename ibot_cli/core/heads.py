"""The projection head: an MLP to a normalised bottleneck, and weight-normed prototypes.

Shapes: D token width, d bottleneck, K prototypes of the CLS head, K' of the patch head.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibot_cli.core.targets import SumOverRanks, identity


class Prototypes(nn.Module):
    """A linear layer without bias whose rows have a direction and, if trainable, a norm.

    The state-dict names are those of `torch.nn.utils.weight_norm`, so official checkpoints fit.
    """

    def __init__(self, bottleneck_size: int, num: int, trainable_norm: bool) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(nn.Linear(bottleneck_size, num, bias=False).weight.detach())
        self.weight_g = nn.Parameter(torch.ones(num, 1), requires_grad=trainable_norm)

    def weight(self) -> Tensor:
        """`g * v / |v|`, float32 `[K, d]`."""
        direction = self.weight_v.float()
        norm: Tensor = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        return direction * (self.weight_g.float() / norm)


class BatchNorm(nn.Module):
    """Batch normalisation over all leading axes and all processes.

    Its running statistics move only in `commit`, so that a skipped step leaves them alone. The authors reuse one
    module at both places of the MLP; here each place has its own.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, size: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.sum_over_ranks: SumOverRanks = identity
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Normalises `[..., size]` in float32; batch statistics while training, running ones otherwise."""
        rows = x.float()
        mean, var = self._batch_statistics(rows) if self.training else (self.running_mean, self.running_var)
        return (rows - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias

    def _batch_statistics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        # Two passes: a mean of squares minus a squared mean loses the digits that a variance needs.
        flat = rows.flatten(0, -2)
        count = self.sum_over_ranks(flat.new_full((), float(len(flat))))
        mean = self.sum_over_ranks(flat.sum(0)) / count
        var = self.sum_over_ranks((flat - mean).square().sum(0)) / count
        # As in torch, the running variance is the unbiased one.
        self._pending.append((mean.detach(), var.detach() * (count / (count - 1).clamp(min=1)), count > 0))
        return mean, var

    @torch.no_grad()
    def commit(self, finite: Tensor) -> None:
        """Moves the running statistics by what was seen since the last call, where `finite` is true.

        Calls without a row say nothing: an MLP of the patches' own has none where no patch is masked.
        """
        for mean, var, any_row in self._pending:
            moves = finite & any_row
            self.running_mean.lerp_(torch.where(moves, mean, self.running_mean), self.momentum)
            self.running_var.lerp_(torch.where(moves, var, self.running_var), self.momentum)
        self._pending.clear()

    def discard(self) -> None:
        """Forgets what was seen since the last `commit`."""
        self._pending.clear()


class Head(nn.Module):
    """iBOT's projection head, usually shared by CLS and patches; prototypes, or all of it, can be separate.

    Args:
        in_size: D.
        prototypes: K.
        patch_prototypes: K' when the prototypes are separate; None shares one layer.
        hidden_size: Width of the MLP.
        bottleneck_size: d.
        num_layers: Linear layers of the MLP; none of them is followed by an activation at the bottleneck.
        activation: `gelu` or `relu`.
        norm: `none`, or `batch` after each hidden layer.
        trainable_norm: Whether the prototypes' norms are learnt.
        separate_mlp: Whether patches have an MLP of their own, `mlp2`, of the same sizes.

    Source:
        iBOT (arXiv 2111.07832), appendix; DINO's head (arXiv 2104.14294). Layer names as in the authors' code. Two
        MLPs: the untied heads of DINOv2 (arXiv 2304.07193), section 4.
    """

    def __init__(
        self,
        in_size: int,
        prototypes: int,
        patch_prototypes: int | None = None,
        *,
        hidden_size: int = 2048,
        bottleneck_size: int = 256,
        num_layers: int = 3,
        activation: str = "gelu",
        norm: str = "none",
        trainable_norm: bool = True,
        separate_mlp: bool = False,
    ) -> None:
        super().__init__()
        sizes = [in_size, *[hidden_size] * (num_layers - 1), bottleneck_size]
        self.mlp = _mlp(sizes, activation, norm)
        self.mlp2 = _mlp(sizes, activation, norm) if separate_mlp else None
        self.last_layer = Prototypes(bottleneck_size, prototypes, trainable_norm)
        self.last_layer2 = (
            Prototypes(bottleneck_size, patch_prototypes, trainable_norm) if patch_prototypes is not None else None
        )

    @property
    def patch_layer(self) -> Prototypes:
        """The prototypes of patches: the CLS ones unless they are separate."""
        return self.last_layer if self.last_layer2 is None else self.last_layer2

    def prototypes(self) -> list[nn.Parameter]:
        """All parameters of the last layers, those that the first epochs freeze."""
        return [p for layer in (self.last_layer, self.last_layer2) if layer is not None for p in layer.parameters()]

    def bottleneck(self, tokens: Tensor) -> Tensor:
        """Class tokens (all tokens, where the MLP is shared) `[..., D]` to unit vectors `[..., d]`, float32."""
        return functional.normalize(self.mlp(tokens).float(), dim=-1)

    def patch_bottleneck(self, tokens: Tensor) -> Tensor:
        """Patches `[..., D]` to unit vectors `[..., d]`, float32."""
        return functional.normalize((self.mlp2 or self.mlp)(tokens).float(), dim=-1)

    def bottlenecks(self, tokens: Tensor, num_cls: int) -> tuple[Tensor, Tensor]:
        """Class tokens, then patches, `[R + M, D]`, to unit vectors `[R, d]` and `[M, d]`, float32.

        Where the MLP is shared they go through it as one batch, which a batch normalisation sees as a whole.

        Args:
            tokens: `num_cls` class tokens first.
            num_cls: R.
        """
        if self.mlp2 is None:
            both = self.bottleneck(tokens)
            return both[:num_cls], both[num_cls:]
        return self.bottleneck(tokens[:num_cls]), self.patch_bottleneck(tokens[num_cls:])

    def image_bottlenecks(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Whole images `[B, 1 + N, D]` to unit vectors of class tokens `[B, d]` and patches `[B, N, d]`, float32."""
        if self.mlp2 is None:
            every = self.bottleneck(tokens)
            return every[:, 0], every[:, 1:]
        return self.bottleneck(tokens[:, 0]), self.patch_bottleneck(tokens[:, 1:])

    def cls_logits(self, bottleneck: Tensor) -> Tensor:
        """Scores of class tokens, `[..., d]` to `[..., K]`, before temperature."""
        return functional.linear(bottleneck, self.last_layer.weight())

    def patch_logits(self, bottleneck: Tensor) -> Tensor:
        """Scores of patches, `[..., d]` to `[..., K']`, before temperature."""
        return functional.linear(bottleneck, self.patch_layer.weight())

    def slot_weights(self) -> dict[str, Tensor]:
        """The prototypes that score class tokens and patches, float32 `[K, d]` and `[K', d]`; shared ones once."""
        cls = self.last_layer.weight()
        return {"cls": cls, "patch": cls if self.last_layer2 is None else self.last_layer2.weight()}


def _mlp(sizes: list[int], activation: str, norm: str) -> nn.Sequential:
    """Linear layers of these widths; all but the last are followed by a normalisation, if any, and the activation."""
    layers: list[nn.Module] = []
    for index, (in_size, out_size) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(in_size, out_size))
        if index < len(sizes) - 2:
            layers += [BatchNorm(out_size)] if norm == "batch" else []
            layers.append(nn.GELU() if activation == "gelu" else nn.ReLU())
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)

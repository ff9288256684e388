"""Layer scale, a learned factor per channel on each residual branch, as a part of the layer before it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

BRANCH_ENDS = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}  # the last layer of the branch that it scales


def without_layer_scale(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network without layer scale: `gamma * (W x + b)` is `(gamma * W) x + gamma * b`.

    Args:
        tensors: In timm's names under any prefix, `blocks.N.ls1.gamma` `[D]` among them; those without are returned
            as they are. Those that are scaled come out in float32.

    Source:
        Layer scale: Going deeper with image transformers (arXiv 2103.17239).
    """
    folded = dict(tensors)
    for name, gamma in tensors.items():
        end = next((end for end in BRANCH_ENDS if name.endswith(f".{end}")), None)
        if end is None:
            continue
        del folded[name]
        layer = name.removesuffix(end) + BRANCH_ENDS[end]
        for part in ("weight", "bias"):
            if (value := tensors.get(f"{layer}.{part}")) is not None:
                factor = gamma.double().reshape(-1, *[1] * (value.ndim - 1))
                folded[f"{layer}.{part}"] = (factor * value.double()).float()
    return folded

"""What another epsilon of the LayerNorms does, measured."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ibot_cli.weights.fill import unfilled
from ibot_cli.weights.layouts.found import TimmNetwork
from ibot_cli.weights.norm_epsilon import OURS
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.timm_models import TimmBackbone

_SAME = 1e-5  # as rounding differs between libraries
_PATCHES = 4  # of the image's side: the norms act on each token alone


def epsilon_note(
    network: BackboneShape | TimmNetwork, tensors: Mapping[str, Tensor], epsilon: float | None
) -> tuple[str, ...]:
    """A note with the largest difference of tokens over their largest value, on a random image.

    Args:
        network: That will be built; its norms have epsilon 1e-6.
        tensors: That will fill it, `backbone.*`.
        epsilon: Of the network that the tensors come from; None if it is the same.

    Returns:
        Empty without a difference above rounding, and where the tensors do not fit (which is an error elsewhere).
    """
    if epsilon is None or epsilon == OURS:
        return ()
    backbone = _filled(network, tensors)
    if backbone is None:
        return ()
    images = torch.randn(1, *_size(network), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = backbone(images)
        for module in backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = epsilon
        theirs = backbone(images)
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    if difference <= _SAME:
        return ()
    return (
        f"Its norms have epsilon {epsilon:g}, those of ibot {OURS:g}: on a random image the tokens differ by"
        f" {difference:.1e} of their largest value.",
    )


def _filled(network: BackboneShape | TimmNetwork, tensors: Mapping[str, Tensor]) -> nn.Module | None:
    """The network in evaluation mode; None where the tensors do not fit."""
    state = {name.removeprefix("backbone."): value.float() for name, value in tensors.items()}
    try:
        backbone = unfilled(network.build)
        filled = backbone.model if isinstance(backbone, TimmBackbone) else backbone
        filled.load_state_dict(state)
    except RuntimeError:
        return None
    return backbone.eval()


def _size(network: BackboneShape | TimmNetwork) -> tuple[int, int, int]:
    """Channels, height and width of the image."""
    if isinstance(network, BackboneShape):
        side = min(network.image_size, _PATCHES * network.patch_size)
        return network.channels, side, side
    kwargs = network.kwargs
    return int(kwargs["in_chans"]), int(kwargs["img_size"]), int(kwargs["img_size"])

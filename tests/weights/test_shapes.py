import pytest
import torch

from ibot_cli.errors import WeightsError
from ibot_cli.weights.shapes import BackboneShape, backbone_shape


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    shape = BackboneShape(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=32, depth=1, heads=2)
    with torch.random.fork_rng(devices=[]):
        tensors = {f"backbone.{name}": value for name, value in shape.build().state_dict().items()}
    assert backbone_shape(tensors, {}, 4).heads == 4
    with pytest.raises(
        WeightsError, match="--heads 3 does not fit the weights: their width 32 is no multiple"
    ) as caught:
        backbone_shape(tensors, {}, 3)
    assert caught.value.hint == "Attention heads share the width evenly; possible are 1, 2, 4, 8, 16, 32."

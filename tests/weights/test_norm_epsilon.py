"""A Swin under another epsilon: the same features from other weights."""

import pytest
import timm
import torch

from ibot_cli.weights.norm_epsilon import LIBRARIES, OURS, swin_at_epsilon
from tests.weights.export.networks import built, narrow_swin

__all__ = ["narrow_swin"]


@pytest.fixture
def narrow(narrow_swin):
    network = built(narrow_swin)
    with torch.no_grad():  # where the tokens are small, the epsilon weighs most
        network.patch_embed.norm.weight.mul_(0.01)
        network.patch_embed.norm.bias.mul_(0.01)
    return network


def features_of_timm(tensors, images):
    """timm's own Swin, whose norms have 1e-5."""
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=2, embed_dim=16, depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8), num_classes=0,
    ).eval()  # fmt: skip
    model.load_state_dict(tensors)
    with torch.no_grad():
        return model.forward_features(images).flatten(1, 2)


def test_weights_of_another_epsilon_compute_the_same(narrow):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = narrow(images)[:, 1:]
    scale = expected.abs().max()
    plain = features_of_timm(narrow.state_dict(), images)
    moved = features_of_timm(swin_at_epsilon(narrow.state_dict(), OURS, LIBRARIES), images)
    assert (plain - expected).abs().max() > 1e-3 * scale
    assert (moved - expected).abs().max() < 5e-6 * scale


def test_there_and_back_leaves_the_weights_and_the_argument(narrow):
    tensors = {f"backbone.{name}": value for name, value in narrow.state_dict().items()}
    before = {name: value.clone() for name, value in tensors.items()}
    there = swin_at_epsilon(tensors, OURS, LIBRARIES)
    back = swin_at_epsilon(there, LIBRARIES, OURS)
    assert list(there) == list(tensors)
    assert not torch.equal(there["backbone.patch_embed.norm.bias"], before["backbone.patch_embed.norm.bias"])
    for name, value in before.items():
        assert torch.equal(tensors[name], value)
        torch.testing.assert_close(back[name], value, rtol=3e-7, atol=0)

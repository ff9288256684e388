"""The projection head and its batch normalisation."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from ibot_cli.core.heads import BatchNorm, Head, Prototypes
from tests.core import tiny
from tests.core.test_targets import Ranks


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("dim", "separate", "expected"),
    [
        (384, False, 7_614_720),
        (384, True, 9_720_064),
        (768, False, 8_401_152),
        (768, True, 10_506_496),
        (1024, False, 8_925_440),
        (1024, True, 11_030_784),
    ],
)
def test_published_parameter_counts(dim: int, separate: bool, expected: int) -> None:
    with torch.device("meta"):
        head = Head(dim, 8192, 8192 if separate else None)
    assert sum(p.numel() for p in head.parameters()) == expected


def test_shapes_and_unit_bottleneck() -> None:
    head = tiny.head(patch_prototypes=5)
    z = head.bottleneck(tokens(2, 3, 16))
    assert z.shape == (2, 3, 8) and z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(2, 3))
    assert head.cls_logits(z).shape == (2, 3, 12) and head.patch_logits(z).shape == (2, 3, 5)


def test_mlp_by_hand() -> None:
    """Three linear layers, GELU between them and none at the end."""
    head = tiny.head()
    tiny.scatter(head, 0)
    first, _, second, _, third = head.mlp
    x = tokens(4, 16)
    for layer in (first, second):
        x = torch.nn.functional.gelu(x @ layer.weight.T + layer.bias)
    x = x @ third.weight.T + third.bias
    torch.testing.assert_close(head.bottleneck(tokens(4, 16)), x / x.norm(dim=-1, keepdim=True))


def test_options_of_the_mlp() -> None:
    kinds = [type(layer) for layer in tiny.head(activation="relu", norm="batch").mlp]
    assert kinds == [nn.Linear, BatchNorm, nn.ReLU, nn.Linear, BatchNorm, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in tiny.head(num_layers=1).mlp] == [nn.Linear]


def test_initialisation() -> None:
    head = Head(64, 50, hidden_size=300, bottleneck_size=32)
    assert head.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not head.mlp[0].bias.any() and torch.equal(head.last_layer.weight_g, torch.ones(50, 1))


def test_logits_are_cosines_when_the_norm_is_fixed() -> None:
    head = tiny.head(trainable_norm=False)
    z = head.bottleneck(tokens(20, 16))
    expected = torch.nn.functional.cosine_similarity(z[:, None], head.last_layer.weight_v[None], dim=-1)
    torch.testing.assert_close(head.cls_logits(z), expected)
    assert not head.last_layer.weight_g.requires_grad and head.last_layer.weight_v.requires_grad


def test_trained_norms_scale_the_cosines() -> None:
    head = tiny.head()
    z = head.bottleneck(tokens(20, 16))
    cosines = head.cls_logits(z)
    with torch.no_grad():
        head.last_layer.weight_g.copy_(torch.arange(1.0, 13.0)[:, None])
    torch.testing.assert_close(head.cls_logits(z), cosines * torch.arange(1.0, 13.0))
    assert head.last_layer.weight_g.requires_grad


def test_prototypes_equal_torch_weight_norm() -> None:
    ours = Prototypes(8, 5, trainable_norm=True)
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(8, 5, bias=False), dim=0)
    with torch.no_grad():
        ours.weight_g.copy_(torch.rand(5, 1) + 0.5)
        theirs.parametrizations.weight.original0.copy_(ours.weight_g)
        theirs.parametrizations.weight.original1.copy_(ours.weight_v)
    torch.testing.assert_close(ours.weight(), theirs.weight)
    ours.weight().square().mul(torch.arange(8.0)).sum().backward()
    theirs.weight.square().mul(torch.arange(8.0)).sum().backward()
    torch.testing.assert_close(ours.weight_v.grad, theirs.parametrizations.weight.original1.grad)
    torch.testing.assert_close(ours.weight_g.grad, theirs.parametrizations.weight.original0.grad)


def test_shared_and_separate_prototypes() -> None:
    shared, separate = tiny.head(), tiny.head(patch_prototypes=12)
    z = shared.bottleneck(tokens(3, 16))
    assert shared.patch_layer is shared.last_layer and torch.equal(shared.patch_logits(z), shared.cls_logits(z))
    z = separate.bottleneck(tokens(3, 16))
    assert not torch.equal(separate.patch_logits(z), separate.cls_logits(z))
    assert [len(head.prototypes()) for head in (shared, separate)] == [2, 4]


@pytest.mark.parametrize("patch_prototypes", [None, 5])
def test_prototypes_by_slot(patch_prototypes: int | None) -> None:
    head = tiny.head(patch_prototypes)
    z, weights = head.bottleneck(tokens(9, 16)), head.slot_weights()
    torch.testing.assert_close(z @ weights["cls"].T, head.cls_logits(z))
    torch.testing.assert_close(z @ weights["patch"].T, head.patch_logits(z))
    assert (weights["cls"] is weights["patch"]) == (patch_prototypes is None)


def norms(size: int = 6) -> tuple[BatchNorm, nn.BatchNorm1d]:
    ours, theirs = BatchNorm(size), nn.BatchNorm1d(size)
    tiny.scatter(ours, 3)
    theirs.load_state_dict({**ours.state_dict(), "num_batches_tracked": torch.tensor(0)})
    return ours, theirs


def test_batch_norm_equals_that_of_torch() -> None:
    """Output, gradients and, over three commits, the running statistics."""
    ours, theirs = norms()
    for seed in range(3):
        x = tokens(4, 10, 6, seed=seed) * 3 + 2
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        left, right = ours(a), theirs(b.flatten(0, 1)).unflatten(0, (4, 10))
        torch.testing.assert_close(left, right)
        left.square().mul(x).sum().backward()
        right.square().mul(x).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)
        ours.commit(torch.tensor(True))
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x.flatten(0, 1)).unflatten(0, (4, 10)))


def test_running_statistics_move_only_with_a_good_commit() -> None:
    norm, _ = norms()
    before = tiny.snapshot(norm)
    norm(tokens(8, 6))
    assert tiny.same(tiny.snapshot(norm), before)
    norm(torch.full((8, 6), torch.nan))
    norm.commit(torch.tensor(False))
    assert tiny.same(tiny.snapshot(norm), before)
    norm.commit(torch.tensor(True))  # nothing was seen since
    assert tiny.same(tiny.snapshot(norm), before)
    norm(tokens(8, 6))
    norm.commit(torch.tensor(True))
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_no_rows_say_nothing_about_their_statistics() -> None:
    norm, _ = norms()
    before = tiny.snapshot(norm)
    assert norm(tokens(0, 6)).shape == (0, 6)
    norm.commit(torch.tensor(True))
    assert tiny.same(tiny.snapshot(norm), before)


def test_evaluation_notes_nothing() -> None:
    norm, _ = norms()
    norm.eval()
    before = tiny.snapshot(norm)
    norm(tokens(8, 6))
    norm.commit(torch.tensor(True))
    assert tiny.same(tiny.snapshot(norm), before)


def test_two_ranks_equal_one() -> None:
    """Unequal shares of the rows give the joint statistics on both sides."""
    joint, _ = norms()
    x = tokens(11, 6) * 2 + 1
    expected = joint(x)
    ranks, outputs, parts = Ranks(2), {}, [copy.deepcopy(norms()[0]) for _ in range(2)]

    def work(rank: int, rows: Tensor) -> None:
        parts[rank].sum_over_ranks = ranks.sum_for(rank)
        with torch.no_grad():
            outputs[rank] = parts[rank](rows)

    threads = [threading.Thread(target=work, args=(r, rows)) for r, rows in enumerate((x[:4], x[4:]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(torch.cat([outputs[0], outputs[1]]), expected)
    for norm in (joint, *parts):
        norm.commit(torch.tensor(True))
    for norm in parts:
        torch.testing.assert_close(norm.running_mean, joint.running_mean)
        torch.testing.assert_close(norm.running_var, joint.running_var)


def test_bottleneck_is_float32_and_unit_under_autocast() -> None:
    head = tiny.head(norm="batch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = head.bottleneck(tokens(20, 16))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(20))


def test_patches_with_an_mlp_of_their_own() -> None:
    head = tiny.head(patch_prototypes=5, separate_mlp=True)
    tiny.scatter(head, 0)
    cls, patch = tiny.head(), tiny.head(5)
    state = head.state_dict()
    cls.load_state_dict({n: value for n, value in state.items() if not n.startswith(("mlp2.", "last_layer2."))})
    patch.load_state_dict(
        {name: state[name.replace("mlp.", "mlp2.")] for name in patch.state_dict() if name.startswith("mlp.")}
        | {name: value for name, value in state.items() if name.startswith("last_layer")}
    )
    x = tokens(2, 4, 16)
    expected = cls.bottleneck(x[:, 0]), patch.bottleneck(x[:, 1:])
    for ours, theirs in zip(head.image_bottlenecks(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    flat = torch.cat([x[:, 0], x[:, 1:].flatten(0, 1)])
    for ours, theirs in zip(head.bottlenecks(flat, 2), expected, strict=True):
        torch.testing.assert_close(ours, theirs.reshape(-1, 8))
    assert not torch.allclose(head.patch_bottleneck(x), head.bottleneck(x))


def test_a_shared_mlp_sees_all_tokens_at_once() -> None:
    """Batch statistics of class tokens and patches together."""
    x, heads = tokens(6, 16), [tiny.head(norm="batch") for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    cls, patch = heads[0].bottlenecks(x, 2)
    torch.testing.assert_close(torch.cat([cls, patch]), heads[1].bottleneck(x))
    assert len(heads[0].mlp[1]._pending) == 1

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ibot_cli.data.rng import epoch_order
from ibot_cli.errors import DataError
from ibot_cli.evaluate.labelled import Labelled
from ibot_cli.evaluate.linear import augment as linear_augment
from ibot_cli.evaluate.linear.augment import AugmentedFeed, crop_recipe, flips
from ibot_cli.weights.load import LoadedBackbone
from tests.evaluate.images import Coloured
from tests.evaluate.probing import tiny_vit

CPU = torch.device("cpu")
LABELS = [0, 1, 2] * 7


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedBackbone:
    return tiny_vit(tmp_path_factory.mktemp("weights"))


def feed(loaded: LoadedBackbone, bad: tuple[int, ...] = (), **options: object) -> AugmentedFeed:
    source = Coloured(LABELS, bad=bad)
    settings: dict[str, object] = {"flip": True, "batch": 8, "epochs": 2, "seed": 3, "device": CPU, **options}
    return AugmentedFeed(loaded, Labelled(source, np.array(LABELS)), ["cls", "cls2+mean"], **settings)  # type: ignore[arg-type]


def epoch(found: AugmentedFeed, number: int) -> tuple[dict[str, Tensor], Tensor]:
    parts = list(found.epoch(number))
    features = {name: torch.cat([part[name] for part, _ in parts]) for name in parts[0][0]}
    return features, torch.cat([labels for _, labels in parts])


def test_labels_and_features_of_every_pooling(loaded: LoadedBackbone) -> None:
    found = feed(loaded)
    features, labels = epoch(found, 0)
    assert found.steps_per_epoch == 2 and labels.tolist() == [LABELS[i] for i in epoch_order(3, 0, 21)[:16]]
    dim = loaded.backbone.dim
    assert {name: tuple(rows.shape) for name, rows in features.items()} == {
        "cls": (16, dim),
        "cls2+mean": (16, 3 * dim),
    }
    torch.testing.assert_close(features["cls"], features["cls2+mean"][:, dim : 2 * dim])
    images = [
        crop_recipe(loaded, True).view(Coloured(LABELS).read(int(i)), 3, int(i), 0) for i in epoch_order(3, 0, 21)[:16]
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (loaded.mean, loaded.std))
    with torch.no_grad():
        tokens = loaded.backbone((pixels - mean) / std)
    torch.testing.assert_close(features["cls"], tokens[:, 0], rtol=1e-4, atol=1e-5)


def test_crops_are_new_in_every_epoch_and_the_same_in_every_call(loaded: LoadedBackbone) -> None:
    first = feed(loaded)
    zero, one = epoch(first, 0), epoch(first, 1)
    assert not torch.equal(zero[0]["cls"].sort(0).values, one[0]["cls"].sort(0).values)
    torch.testing.assert_close(epoch(feed(loaded), 0)[0]["cls"], zero[0]["cls"])


def test_forward_passes_of_any_size_find_the_same(loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = epoch(feed(loaded), 0)
    monkeypatch.setattr(linear_augment, "_FORWARD", 3)
    parts = epoch(feed(loaded), 0)
    torch.testing.assert_close(parts[0]["cls2+mean"], whole[0]["cls2+mean"])
    assert torch.equal(parts[1], whole[1])


def test_unreadable_images_are_replaced_and_counted(loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    found = feed(loaded, bad=(4,), batch=21)
    _, labels = epoch(found, 0)
    assert found.bad == {"image 4": "damaged"} and len(labels) == 21
    monkeypatch.setattr(linear_augment, "MAX_BAD_FILES", 1)
    with pytest.raises(DataError, match="2 of 21 files cannot be read"):
        epoch(feed(loaded, bad=(4, 5), batch=21), 0)


def test_the_published_crops(loaded: LoadedBackbone) -> None:
    recipe = crop_recipe(loaded, False)
    assert (recipe.crop_scale, recipe.interpolation, recipe.flip_prob) == ((0.08, 1.0), "bilinear", 0.0)
    assert recipe.erased(0, 0, 0) is None and crop_recipe(loaded, True).flip_prob == 0.5


@pytest.mark.parametrize(
    ("text", "flipped"),
    [
        ("views:\n  flip_prob: 0.0\n", False),
        ("views:\n  flip_prob: 0.5\n", True),
        ("augment:\n  flip_prob: 0.0\n", False),
        ("other: 1\n", True),
    ],
)
def test_flips_follow_the_run(tmp_path: Path, text: str, flipped: bool) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert flips(str(tmp_path)) is flipped


def test_flips_of_weights_without_a_run(tmp_path: Path) -> None:
    assert flips("timm:vit_tiny_patch16_224") and flips(str(tmp_path))

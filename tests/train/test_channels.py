"""Training on images of five channels and 16 bits, and everything that reads the run afterwards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import ConfigError, DataError, UsageError
from ibot_cli.evaluate.features import feature_pass
from ibot_cli.evaluate.knn.protocol import knn_accuracy
from ibot_cli.train.launch import _about_files
from ibot_cli.train.recipe import Recipe, settle
from ibot_cli.train.request import Request
from ibot_cli.visualize.whole_image import whole_image
from ibot_cli.weights.load import load_weights
from tests.train import runs
from tests.train.finetune import tuned

tifffile = pytest.importorskip("tifffile")
DEEP = ("data.channels=5", "data.bits=16", "train.epochs=1", "monitor.knn_epochs=0")


def make_stacks(folder: Path) -> Path:
    """12-bit stacks whose class shows in the last channel alone, as interleaved bands, planes and pages."""
    rng = np.random.default_rng(0)
    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(12):
            levels = rng.integers(0, 2000, (5, 20, 20), dtype=np.uint16)
            levels[4] //= 4 if label else 1
            place = folder / f"class{label}" / f"{number}.tif"
            if number % 3 == 0:
                pixels, layout = np.moveaxis(levels, 0, -1).copy(), {"planarconfig": "contig"}
            else:
                pixels, layout = levels, {"planarconfig": "separate"} if number % 3 == 1 else {}
            tifffile.imwrite(place, pixels, photometric="minisblack", compression="deflate", **layout)
    return folder


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stacks(tmp_path_factory.mktemp("stacks") / "images")


@pytest.fixture(scope="module")
def run(stacks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deep") / "run"
    runs.pretrain(stacks, out, *DEEP)
    return out


def settled(images: Path, *sets: str) -> Recipe:
    return settle(Request(data=str(images), sets=[*runs.SMALL, *sets], preset="ibot_vits16"))


def test_statistics_are_measured_said_and_kept(stacks: Path, run: Path) -> None:
    source = open_source(str(stacks), channels=5, bits=16)
    levels = np.stack([source.levels(index) for index in range(len(source))]) / 65535
    stored = yaml.safe_load((run / "config.yaml").read_text())["data"]
    np.testing.assert_allclose(stored["mean"], levels.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(stored["std"], levels.std((0, 1, 2)), rtol=1e-4)
    recipe = settled(stacks, *DEEP)
    reason = "measured on all 24 images: there are no usual values for 5 channels"
    assert recipe.choices["data.mean"] == (tuple(stored["mean"]), reason)
    assert recipe.choices["data.std"] == (tuple(stored["std"]), reason)
    given = settled(stacks, *DEEP, "data.mean=0.1,0.1,0.1,0.1,0.1")
    assert given.resolved.config.data.mean == (0.1,) * 5 and "data.mean" not in given.choices
    assert given.resolved.config.data.std == tuple(stored["std"]) and "data.std" in given.choices


def test_the_class_shows_to_a_network_of_all_channels(stacks: Path, run: Path) -> None:
    loaded = load_weights(str(run))
    assert (loaded.channels, loaded.bits) == (5, 16)
    source = open_source(str(stacks), channels=5, bits=16)
    table = feature_pass(loaded, source, cache=False)
    assert len(table) == 24 and not table.bad
    transform = eval_transform(*loaded.preparation)
    every = np.arange(24)
    found = knn_accuracy(loaded.backbone, source, every[::2], every[1::2], 3, transform)
    assert found == 1.0


def test_five_channels_are_drawn_and_measured_whole(stacks: Path, run: Path) -> None:
    loaded = load_weights(str(run))
    levels = open_source(str(stacks), channels=5, bits=16).levels(0)
    whole = whole_image(levels, loaded)
    assert whole.shown.mode == "RGB" and whole.pixels.shape == (5, 16, 16)
    assert abs(float(whole.pixels.mean())) < 0.3


def test_it_is_continued_as_it_was(stacks: Path, run: Path) -> None:
    again = settle(Request(data=str(stacks), sets=[], init=str(run)))
    data = again.resolved.config.data
    assert (data.channels, data.bits, data.mean) == (5, 16, load_weights(str(run)).mean)
    assert again.choices["data.bits"] == (16, "as deep as the weights see")


def test_fine_tuning_leaves_rand_augment_out_or_says_so(stacks: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RandAugment works on grey and RGB images of 8 bits") as caught:
        tuned.prepare(tuned.request(run, stacks, tmp_path / "a", "augment.auto_augment=rand-m9-mstd0.5-inc1"))
    assert "--set augment.auto_augment=none" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"data\.bits = 8, but .* sees 16"):
        tuned.prepare(tuned.request(run, stacks, tmp_path / "a", "data.bits=8"))


@pytest.mark.slow
def test_a_classifier_is_tuned_and_loaded(stacks: Path, run: Path, tmp_path: Path) -> None:
    tuned.finetune(run, stacks, tmp_path / "tuned", "augment.color_jitter=0.4", "train.epochs=1")
    loaded = load_weights(str(tmp_path / "tuned"))
    assert (loaded.channels, loaded.bits) == (5, 16) and loaded.classes == ("class0", "class1")
    with torch.no_grad():
        assert loaded.classifier is not None and loaded.classifier(torch.zeros(1, 5, 16, 16)).shape == (1, 2)


def test_what_cannot_be_is_told(stacks: Path) -> None:
    with pytest.raises(DataError, match="it has 5 channels, the network sees 4"):
        settled(stacks, "data.channels=4")
    with pytest.raises(ConfigError, match=r"data\.std = \[0\.1\] .*: has 1 entries, but data\.channels = 5"):
        settled(stacks, "data.channels=5", "data.std=0.1")


def test_what_is_left_out_of_files_is_a_warning() -> None:
    def told(bits: int, **modes: int) -> list[str]:
        images = SimpleNamespace(num_checked=24, modes=modes)
        return _about_files(SimpleNamespace(data=images, config=SimpleNamespace(data=SimpleNamespace(bits=bits))))

    assert told(8, RGB=24) == told(16, **{"uint16 x 5": 24}) == []
    assert told(8, **{"I;16": 2, "L": 22}) == []  # strays among others
    assert told(8, **{"uint16 x 5": 20, "I;16": 3})[0].startswith(
        "23 of 24 images have more than 8 bits, of which 8 are kept"
    )
    assert told(8, **{"L, page 1 of 5": 8})[0].startswith("8 of 24 images are the first of several pages")

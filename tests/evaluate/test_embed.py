import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError
from ibot_cli.evaluate.embed import EmbedResult, embed
from ibot_cli.weights.load import LoadedBackbone, load_weights
from tests.evaluate.images import write_folder


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedBackbone:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    backbone = build_backbone(arch="vit_tiny", image_size=16, channels=3, patch_size=4, width=16, depth=2, heads=2)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    return load_weights(str(tmp_path / "weights.pth"), heads=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ with classes a and c, val/ with a and b: six images, one of them damaged."""
    write_folder(tmp_path / "images" / "train", {"a": 2, "c": 2})
    write_folder(tmp_path / "images" / "val", {"a": 1, "b": 1}, seed=1)
    (tmp_path / "images" / "train" / "c" / "0.png").write_bytes(b"")
    return tmp_path / "images"


def write(
    loaded: LoadedBackbone, data: Path | str, out: Path, **options: object
) -> tuple[EmbedResult, np.ndarray, dict]:
    result = embed(loaded, str(data), out, **options)  # type: ignore[arg-type]
    return result, np.load(out), json.loads(out.with_suffix(".json").read_text())


def test_rows_are_the_features_of_their_paths(loaded: LoadedBackbone, folder: Path, tmp_path: Path) -> None:
    result, features, about = write(loaded, folder, tmp_path / "f.npy")
    assert result.shape == features.shape == (5, 16) == tuple(about["shape"])
    transform = eval_transform(loaded.image_size, loaded.crop_ratio, 3, loaded.mean, loaded.std)
    source = open_source(str(folder), channels=3, split="all")
    for row, path in zip(features, about["paths"], strict=True):
        place = next(index for index in range(len(source)) if source.path(index) == path)
        with torch.inference_mode():
            expected = loaded.backbone(transform(source.read(place))[None])[0, 0]
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-6)
    assert about["classes"] == ["a", "b", "c"] and result.classes == 3
    assert [about["classes"][label] for label in about["labels"]] == [Path(path).parent.name for path in about["paths"]]
    assert list(result.unreadable) == [str(folder / "train" / "c" / "0.png")]
    assert about["weights_hash"] == result.weights_hash == loaded.weights_hash
    assert about["fingerprint"] == result.fingerprint == source.fingerprint


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("test", 2), ("all", 5)])
def test_parts_of_the_images(loaded: LoadedBackbone, folder: Path, tmp_path: Path, split: str, count: int) -> None:
    result, features, about = write(loaded, folder, tmp_path / "f.npy", split=split)
    assert len(features) == len(about["paths"]) == len(about["labels"]) == count
    assert about["classes"] == ["a", "b", "c"]  # a label means the same in every part
    assert (result.split, about["split"]) == (split, split)


def test_a_test_part_that_is_not_there(loaded: LoadedBackbone, tmp_path: Path) -> None:
    write_folder(tmp_path / "flat", {"a": 1})
    with pytest.raises(DataError, match="has no test part"):
        embed(loaded, str(tmp_path / "flat"), tmp_path / "f.npy", split="test")
    assert not (tmp_path / "f.npy").exists()


def test_images_without_labels(loaded: LoadedBackbone, folder: Path, tmp_path: Path) -> None:
    result, features, about = write(loaded, folder / "val" / "a", tmp_path / "f.npy")
    assert features.shape == (1, 16) and result.classes is None
    assert about["labels"] is None and about["classes"] is None


def test_poolings_and_lengths(loaded: LoadedBackbone, folder: Path, tmp_path: Path) -> None:
    plain, both, about = write(loaded, folder, tmp_path / "f.npy", pooling="cls+mean")
    assert both.shape == (5, 32) and (plain.pooling, about["pooling"]) == ("cls+mean", "cls+mean")
    _, cls, _ = write(loaded, folder, tmp_path / "cls.npy")
    np.testing.assert_allclose(both[:, :16], cls, atol=1e-6)
    result, unit, about = write(loaded, folder, tmp_path / "unit.npy", normalize=True)
    assert result.normalized and about["normalized"]
    np.testing.assert_allclose(unit, cls / np.linalg.norm(cls, axis=1, keepdims=True), atol=1e-6)
    _, rounded, about = write(loaded, folder, tmp_path / "bf16.npy", precision="bf16")
    assert about["precision"] == "bf16" and rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, cls, atol=0.1)
    assert not np.array_equal(rounded, cls)


def test_the_cache_changes_nothing(loaded: LoadedBackbone, folder: Path, tmp_path: Path) -> None:
    found = [
        write(loaded, folder, tmp_path / f"{name}.npy", cache=name != "none")[1] for name in ("none", "one", "two")
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[1], found[2])


def test_progress_is_told(loaded: LoadedBackbone, folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    embed(loaded, str(folder), tmp_path / "f.npy", cache=False, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6, 6)

"""`hf:` data: saved folders, parquet files and names; columns, splits, labels and what is wrong with them."""

import builtins
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.huggingface import loading
from ibot_cli.data.huggingface.address import parse_address
from ibot_cli.data.places import own_parts
from ibot_cli.data.sources import open_source
from ibot_cli.errors import DataError

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
IMAGES = datasets.Image()
CLASSES = datasets.ClassLabel(names=["cat", "dog"])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.builder.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    datasets.disable_progress_bars()
    loading._by_name.cache_clear()


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png(number: int) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels(number)).save(stored, "PNG")
    return stored.getvalue()


def table(columns: Mapping[str, Sequence[Any]], features: Mapping[str, Any]) -> Any:
    return datasets.Dataset.from_dict(dict(columns), features=datasets.Features(dict(features)))


def pets(numbers: Sequence[int] = (0, 1, 2)) -> Any:
    stored = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
    labels = [number % 2 for number in numbers]
    return table({"image": stored, "label": labels}, {"image": IMAGES, "label": CLASSES})


def saved(data: Any, folder: Path) -> str:
    data.save_to_disk(str(folder))
    return f"hf:{folder}"


def test_a_saved_data_set_gives_its_own_bytes_and_classes(tmp_path: Path) -> None:
    source = open_source(saved(pets(), tmp_path / "pets"), channels=3)
    assert len(source) == 3
    assert [source.encoded(index) for index in range(3)] == [(png(number), "png") for number in range(3)]
    np.testing.assert_array_equal(source.levels(2), pixels(2))
    assert source.labels is not None and source.labels.tolist() == [0, 1, 0]
    assert source.classes == ["cat", "dog"]
    assert source.path(1) == f"hf:{tmp_path / 'pets'}[1]"
    assert source.notes == []


@pytest.mark.parametrize("test_name", ["validation", "test"])
def test_splits_are_parts(test_name: str, tmp_path: Path) -> None:
    parts = datasets.DatasetDict({test_name: pets([5]), "train": pets([0, 1]), "extra": pets([7])})
    data = saved(parts, tmp_path / "split")
    train, test, both = (open_source(data, channels=3, split=split) for split in ("train", "test", "all"))
    assert own_parts(data) == ["train", test_name]
    assert (len(train), len(test), len(both)) == (2, 1, 3)
    np.testing.assert_array_equal(both.levels(2), test.levels(0))
    assert test.path(0) == both.path(2) == f"{data}/{test_name}[0]"
    assert train.notes == [f"The images are those in train; {test_name}, extra not used."]
    assert len({source.fingerprint for source in (train, test, both)}) == 3


def test_one_split_is_for_training_and_there_is_no_test_part(tmp_path: Path) -> None:
    data = saved(datasets.DatasetDict({"everything": pets()}), tmp_path / "one")
    assert len(open_source(data, channels=3)) == 3
    with pytest.raises(DataError, match="has no test part"):
        open_source(data, channels=3, split="test")


def test_several_splits_without_train_are_named(tmp_path: Path) -> None:
    data = saved(datasets.DatasetDict({"a": pets(), "b": pets()}), tmp_path / "odd")
    with pytest.raises(DataError, match="no split named train: there are a, b"):
        open_source(data, channels=3)


def test_parquet_files_and_a_single_one(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    pets().to_parquet(str(tmp_path / "table" / "train.parquet"))
    for data in (f"hf:{tmp_path / 'table'}", f"hf:{tmp_path / 'table' / 'train.parquet'}"):
        source = open_source(data, channels=3)
        np.testing.assert_array_equal(source.levels(1), pixels(1))
        assert source.classes == ["cat", "dog"]


@pytest.mark.parametrize(
    "values, kind, classes, labels",
    [
        (["b", "a10", "a9"], datasets.Value("string"), ["a9", "a10", "b"], [2, 1, 0]),
        ([7, 3, 7], datasets.Value("int64"), ["3", "7"], [1, 0, 1]),
        ([4, 4, 4], datasets.Value("int32"), None, None),
    ],
)
def test_a_column_of_names_or_numbers_gives_classes(
    values: list[Any], kind: Any, classes: list[str] | None, labels: list[int] | None, tmp_path: Path
) -> None:
    stored = [{"bytes": png(number), "path": None} for number in range(3)]
    data = saved(table({"picture": stored, "labels": values}, {"picture": IMAGES, "labels": kind}), tmp_path / "d")
    source = open_source(data, channels=3)
    assert source.classes == classes
    assert (None if source.labels is None else source.labels.tolist()) == labels


def test_classes_that_are_kept_secret_are_not_used(tmp_path: Path) -> None:
    stored = [{"bytes": png(0), "path": None}] * 2
    data = saved(table({"image": stored, "label": [-1, 1]}, {"image": IMAGES, "label": CLASSES}), tmp_path / "d")
    source = open_source(data, channels=3)
    assert source.labels is None
    assert source.notes == ["Not every image has a label: the classes are not used."]


def test_columns_can_be_named(tmp_path: Path) -> None:
    stored = [{"bytes": png(0), "path": None}, {"bytes": png(1), "path": None}]
    mirrored = [{"bytes": png(2), "path": None}, {"bytes": png(3), "path": None}]
    columns = {"left": stored, "right": mirrored, "raw": [png(4), png(5)], "fine": [0, 1], "coarse": [1, 0]}
    kinds = {"left": IMAGES, "right": IMAGES, "raw": datasets.Value("binary"), "fine": CLASSES, "coarse": CLASSES}
    data = saved(table(columns, kinds), tmp_path / "many")
    with pytest.raises(DataError, match="several columns of images: left, right") as caught:
        open_source(data, channels=3)
    assert caught.value.hint == f"Name the one to use: {data}[left]."
    source = open_source(f"{data}[right]", channels=3)
    np.testing.assert_array_equal(source.levels(0), pixels(2))
    assert source.labels is None
    assert source.notes[0].startswith("Several columns of classes (fine, coarse), none used")
    source = open_source(f"{data}[raw,coarse]", channels=3)
    np.testing.assert_array_equal(source.levels(1), pixels(5))
    assert source.labels is not None and source.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="has no column rigth"):
        open_source(f"{data}[rigth]", channels=3)


def test_no_column_of_images_and_no_rows(tmp_path: Path) -> None:
    texts = saved(table({"text": ["a"]}, {"text": datasets.Value("string")}), tmp_path / "texts")
    with pytest.raises(DataError, match=r"no column of images: text \(string\)"):
        open_source(texts, channels=3)
    empty = saved(pets([]), tmp_path / "empty")
    with pytest.raises(DataError, match="is empty"):
        open_source(empty, channels=3)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="holds no data that the package datasets understands"):
        open_source(f"hf:{tmp_path / 'nothing'}", channels=3)


def test_rows_without_an_image_or_with_a_lost_file_are_unreadable(tmp_path: Path) -> None:
    kept = tmp_path / "kept.png"
    kept.write_bytes(png(3))
    files = [{"bytes": None, "path": str(path)} for path in (tmp_path / "lost.png", kept)]
    rows = [None, files[0], {"bytes": b"no image", "path": None}, files[1]]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    (tmp_path / "holes").mkdir()
    written = pyarrow.table({"image": pyarrow.array(rows, type=kind)})
    parquet.write_table(written, tmp_path / "holes" / "rows.parquet")
    source = open_source(f"hf:{tmp_path / 'holes'}[image]", channels=3)
    for index, reason in enumerate(("holds no image in this row", "cannot be read", "not an image")):
        with pytest.raises(UnreadableImage, match=reason) as caught:
            source.levels(index)
        assert caught.value.path == source.path(index)
    np.testing.assert_array_equal(source.levels(3), pixels(3))


def test_the_fingerprint_changes_with_the_data(tmp_path: Path) -> None:
    first = open_source(saved(pets(), tmp_path / "a"), channels=3)
    again = open_source(f"hf:{tmp_path / 'a'}", channels=1)
    other = open_source(saved(pets([4, 5, 6]), tmp_path / "b"), channels=3)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def by_name(found: Callable[[str, str | None], Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What is asked of the Hub, which answers with `found`."""
    asked = []

    def load(name: str, config: str | None = None) -> Any:
        asked.append((name, config))
        return found(name, config)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_a_name_and_a_configuration_are_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = datasets.load_from_disk(saved(pets(), tmp_path / "pets").removeprefix("hf:"))
    asked = by_name(lambda name, config: datasets.DatasetDict({"train": stored, "test": stored}), monkeypatch)
    train = open_source("hf:someone/pets:small[image]", channels=3)
    test = open_source("hf:someone/pets:small[image]", channels=3, split="test")
    assert asked == [("someone/pets", "small")]
    assert train.name == "hf:someone/pets:small (train)"
    assert test.path(2) == "hf:someone/pets:small/test[2]"


@pytest.mark.parametrize(
    "error, message, hint",
    [
        (ConnectionError("Couldn't reach 'a/b' on the Hub"), "the Hub cannot be reached", "Check the network"),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"),
            "There is no data set a/b",
            "Check the network",
        ),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."),
            "is gated",
            "hf auth login",
        ),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['x', 'y']\nExample"),
            "several configurations: there are x, y",
            "hf:a/b:x",
        ),
        (RuntimeError("Dataset scripts are no longer supported\nbut"), "cannot be loaded: Dataset scripts are", ""),
    ],
)
def test_what_the_library_raises_becomes_a_sentence(
    error: Exception, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, config: str | None) -> Any:
        raise error

    by_name(fail, monkeypatch)
    with pytest.raises(DataError) as caught:
        open_source("hf:a/b", channels=3)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "\n" not in caught.value.message


def test_a_folder_that_cannot_be_loaded_is_no_matter_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, config: str | None) -> Any:
        raise datasets.exceptions.DatasetGenerationError("An error occurred") from ValueError("row 3 is cut off")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="cannot be loaded: row 3 is cut off") as caught:
        open_source(f"hf:{tmp_path}", channels=3)
    assert "a folder of images needs no hf:" in (caught.value.hint or "")


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> ModuleType:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match="needs the package datasets") as caught:
        open_source("hf:a/b", channels=3)
    assert caught.value.hint == "pip install 'ibot-cli[datasets]'"


@pytest.mark.parametrize("data", ["hf:", "hf:[image]", "hf:./here", "hf:../here", "hf:a/b/c"])
def test_what_is_neither_a_place_nor_a_name_is_refused(data: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_address(data)
    assert "hf:NAME:CONFIG" in (caught.value.hint or "")

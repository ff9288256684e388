import os
import pickle
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.missing import forms
from ibot_cli.data.places import own_parts
from ibot_cli.data.sources import Subset, data_fingerprint, open_source
from ibot_cli.data.splits import holdout, open_splits
from ibot_cli.errors import DataError
from tests.data_pipeline.images import write_image, write_images


def names(source, root):
    return [os.path.relpath(source.path(index), root) for index in range(len(source))]


def error(data, split="train"):
    with pytest.raises(DataError) as caught:
        open_source(str(data), channels=3, split=split)
    assert caught.value.hint
    return caught.value.message


def test_a_flat_folder_in_natural_order(tmp_path):
    for name in ["img10.png", "img9.JPG", "b.webp", ".hidden.png", "notes.txt", "img09.JPG"]:
        write_image(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    source = open_source(str(tmp_path), channels=3)
    assert names(source, tmp_path) == ["b.webp", "img09.JPG", "img9.JPG", "img10.png"]
    assert source.labels is None and source.classes is None
    assert source.read(0).mode == "RGB" and open_source(str(tmp_path), channels=1).read(0).mode == "L"


def test_class_folders_give_labels_at_any_depth(tmp_path):
    for name in ["cat/1.png", "cat/more/2.png", "dog/1.png", "class10/1.png", ".git/x.png"]:
        write_image(tmp_path / name)
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path), channels=3)
    assert source.classes == ["cat", "class10", "dog"]
    assert source.labels.dtype == np.int64 and source.labels.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("files", [["a/1.png", "b/1.png", "top.png"], ["a/1.png", "a/2.png"]])
def test_nested_folders_without_classes(tmp_path, files):
    for name in files:
        write_image(tmp_path / name)
    source = open_source(str(tmp_path), channels=3)
    assert source.labels is None and len(source) == len(files)


def test_train_and_val_folders(tmp_path):
    for name in ["train/a/1.png", "train/b/2.png", "val/b/3.png", "test/a/4.png", "test/c/5.png"]:
        write_image(tmp_path / name)
    train = open_source(str(tmp_path), channels=3)
    assert names(train, tmp_path) == ["train/a/1.png", "train/b/2.png"]
    assert train.notes == ["The images are those in train/; val/, test/ not used."]
    assert train.classes == ["a", "b", "c"] and train.labels.tolist() == [0, 1]
    val = open_source(str(tmp_path), channels=3, split="test")
    assert names(val, tmp_path) == ["val/b/3.png"] and val.labels.tolist() == [1]
    everything = open_source(str(tmp_path), channels=3, split="all")
    assert everything.labels.tolist() == [0, 1, 1, 0, 2]


def test_train_beside_other_folders_is_a_class(tmp_path):
    for name in ["train/1.png", "plane/1.png"]:
        write_image(tmp_path / name)
    assert open_source(str(tmp_path), channels=3).classes == ["plane", "train"]


def test_links_are_followed_once_and_never_in_circles(tmp_path):
    write_images(tmp_path / "data" / "real", 2)
    write_images(tmp_path / "outside", 1)
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data" / "real")
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "data" / "self.png").symlink_to(tmp_path / "data" / "self.png")
    (tmp_path / "data" / "one.png").symlink_to(tmp_path / "outside" / "0.png")
    source = open_source(str(tmp_path / "data"), channels=3)
    assert names(source, tmp_path / "data") == ["again/0.png", "again/1.png", "one.png", "out/0.png"]
    assert source.notes == [
        "2 symbolic links without a target left out.",
        "2 folders reached twice through links, read once.",
    ]


def test_a_list_of_paths(tmp_path):
    write_images(tmp_path / "images", 2)
    absolute = write_image(tmp_path / "else where" / "x.png")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbf# mine\r\nimages/1.png\r\n\r\n" + str(absolute).encode() + b"\nimages/gone.png\n")
    source = open_source(str(listed), channels=3)
    assert len(source) == 3 and source.read(0).size == (20, 16) and source.read(1).mode == "RGB"
    with pytest.raises(UnreadableImage, match=r"gone.png \(line 5\): .*No such file"):
        source.read(2)


def test_names_that_are_not_utf8(tmp_path):
    write_image(tmp_path / os.fsdecode(b"caf\xe9.png"))
    source = open_source(str(tmp_path), channels=3)
    assert source.path(0).encode() and source.read(0).mode == "RGB" and len(source.fingerprint) == 64


def test_errors_name_the_problem(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    assert error(folder) == f"{folder} holds no files."
    (folder / "a.npy").write_text("")
    (folder / "README").write_text("")
    assert error(folder) == f"{folder} holds no image: 2 other files (1 without extension, 1 .npy)."
    assert error(tmp_path / "potos") == (
        f"There is no folder or file {tmp_path}/potos. Did you mean {tmp_path}/photos?"
    )
    assert "parent" in error(tmp_path / "x" / "y")
    assert "Did you mean builtin:digits?" in error("builtin:digts")
    assert "Did you mean builtin:photos?" in error("builtin:photo")
    assert "There is no folder" in error("digits")
    assert "not on this machine" in error("https://example.org/x")
    assert "single image" in error(write_image(tmp_path / "a.png"))
    write_image(folder / "1.png")
    assert error(folder, "test") == f"{folder} has no test part."


def test_hints_name_every_embedded_set(tmp_path):
    for data, hint in [
        ("builtin:mnist", "Embedded: builtin:digits, builtin:photos."),
        ("bultin:digits", forms(["digits", "photos"])),
        (str(tmp_path / "x"), forms(["digits", "photos"])),
        ("digits", "The embedded data set of that name is builtin:digits."),
    ]:
        with pytest.raises(DataError) as caught:
            open_source(data, channels=3)
        assert caught.value.hint == hint
    assert forms(["digits", "photos"]).startswith("DATA is a folder of images, a text file of paths, ")
    assert "tar shards" in forms(["digits"]) and forms(["digits"]).endswith("hf:NAME, hf:FOLDER or builtin:digits.")
    assert "Did you mean builtin:digits?" in error("bultin:digits")


def test_errors_of_lists(tmp_path):
    listed = tmp_path / "list.txt"
    for content, text in [
        (b"# none\n", "lists no path"),
        (b"a.png\nb.png\n", "None of the 2 files"),
        (b"\0\1", "neither a folder nor a text file"),
    ]:
        listed.write_bytes(content)
        assert text in error(listed)


def test_fingerprint_depends_on_content_not_on_place(tmp_path):
    first = tmp_path / "first"
    write_images(first / "a", 3)
    copy = shutil.copytree(first, tmp_path / "copy")
    print_of = lambda folder: open_source(str(folder), channels=3).fingerprint  # noqa: E731
    base = print_of(first)
    assert print_of(copy) == base
    (copy / "a" / "0.png").rename(copy / "a" / "7.png")
    assert print_of(copy) != base
    (copy / "a" / "7.png").rename(copy / "a" / "0.png")
    assert print_of(copy) == base
    stamp = (copy / "a" / "0.png").stat()
    os.utime(copy / "a" / "0.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert print_of(copy) != base
    with (copy / "a" / "0.png").open("ab") as file:
        file.write(b"x")
    os.utime(copy / "a" / "0.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert print_of(copy) != base


def test_fingerprint_of_a_list_does_not_depend_on_how_paths_are_written(tmp_path):
    write_images(tmp_path / "a", 2)
    prints = set()
    for lines in ["a/0.png\na/1.png", f"{tmp_path}/a/1.png\n{tmp_path}/a/0.png"]:
        (tmp_path / "list.txt").write_text(lines)
        prints.add(open_source(str(tmp_path / "list.txt"), channels=3).fingerprint)
    assert len(prints) == 1


def test_fingerprint_does_not_depend_on_the_order():
    assert data_fingerprint(["a", "b"], [1, 2], [3, 4]) == data_fingerprint(["b", "a"], [2, 1], [4, 3])
    assert data_fingerprint(["a", "b"], [1, 2], [3, 4]) != data_fingerprint(["a", "b"], [2, 1], [3, 4])


@pytest.mark.parametrize("channels", [1, 3])
def test_digits_are_those_of_scikit_learn(channels):
    digits = load_digits()
    train, test = train_test_split(np.arange(1797), test_size=360, stratify=digits.target, random_state=0)
    for split, index in [("test", test), ("train", train), ("all", np.arange(1797))][: 3 if channels == 1 else 1]:
        source = open_source("builtin:digits", channels=channels, split=split)
        assert len(source) == len(index)
        np.testing.assert_array_equal(source.labels, digits.target[index])
        image = source.read(5)
        assert image.size == (32, 32) and image.mode == ("L" if channels == 1 else "RGB")
        small = np.asarray(image.convert("L").reduce(4)).astype(float)
        assert np.corrcoef(small.ravel(), digits.images[index[5]].ravel())[0, 1] > 0.95
    assert source.fingerprint != open_source("builtin:digits", channels=1, split="train").fingerprint


def test_subsets(tmp_path):
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 2)
    whole = open_source(str(tmp_path), channels=3)
    part = Subset(whole, np.array([3, 0]))
    assert part.labels.tolist() == [1, 0] and part.path(0) == whole.path(3) and part.classes == ["a", "b"]
    assert part.read(1).tobytes() == whole.read(0).tobytes()
    assert part.fingerprint not in (whole.fingerprint, Subset(whole, np.array([0, 3])).fingerprint)


@pytest.mark.parametrize("data", ["folder", "builtin:digits"])
def test_sources_travel_to_worker_processes(tmp_path, data):
    write_images(tmp_path, 2)
    source = open_source(str(tmp_path) if data == "folder" else data, channels=1)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(1).tobytes() == source.read(1).tobytes() and copy.path(1) == source.path(1)


def test_splits_for_evaluation(tmp_path):
    train, test, sentence = open_splits("builtin:digits", channels=1)
    assert (len(train), len(test)) == (1437, 360) and "own split" in sentence
    write_images(tmp_path / "own" / "train" / "a", 2)
    write_images(tmp_path / "own" / "val" / "a", 1)
    train, test, sentence = open_splits(str(tmp_path / "own"), channels=3)
    assert (len(train), len(test)) == (2, 1) and sentence == "The data's own split: 2 training and 1 test images."
    write_images(tmp_path / "whole" / "a", 10)
    write_images(tmp_path / "whole" / "b", 5)
    train, test, sentence = open_splits(str(tmp_path / "whole"), channels=3, seed=3)
    assert np.bincount(train.labels).tolist() == [8, 4] and np.bincount(test.labels).tolist() == [2, 1]
    assert sentence == (
        "No test part in the data: a stratified hold-out of 20% (seed 3), 12 training and 3 test images."
    )
    assert not {train.path(i) for i in range(12)} & {test.path(i) for i in range(3)}


def test_holdout_keeps_something_of_every_class():
    labels = np.array([0] * 100 + [1] * 2 + [2])
    chosen = holdout(103, labels, seed=0, ratio=0.2)
    assert [int(chosen[labels == c].sum()) for c in range(3)] == [20, 1, 0]
    assert (holdout(103, labels, seed=0, ratio=0.2) == chosen).all()
    assert (holdout(103, labels, seed=1, ratio=0.2) != chosen).any()
    assert holdout(50, None, seed=0, ratio=0.1).sum() == 5


def test_a_run_is_no_folder_of_images(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    write_image(tmp_path / "figures.png")
    assert len(open_source(str(tmp_path), channels=3)) == 1
    (tmp_path / "config.yaml").write_text("data: {}")
    assert error(tmp_path) == f"{tmp_path} is a run, not a folder of images."


@pytest.mark.parametrize(
    ("module", "ask"), [("sources", lambda data: open_source(data, channels=3)), ("places", own_parts)]
)
def test_a_place_that_may_not_be_looked_at(tmp_path, monkeypatch, module, ask):
    def refused(data):
        raise PermissionError(13, "Permission denied", f"{data}/pack.json")

    monkeypatch.setattr(f"ibot_cli.data.{module}.find_shards", refused)
    with pytest.raises(DataError) as caught:
        ask(str(tmp_path))
    assert caught.value.message == f"{tmp_path} cannot be opened: no permission for {tmp_path}/pack.json."
    assert caught.value.hint == "Check the permissions of it and of the folders above it."

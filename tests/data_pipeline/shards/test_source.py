import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.places import anywhere, is_here, own_parts
from ibot_cli.data.shards import index as index_module
from ibot_cli.data.shards import random_file
from ibot_cli.data.sources import open_source
from ibot_cli.data.splits import open_splits, parts_of_images
from ibot_cli.errors import DataError
from tests.data_pipeline.images import write_image
from tests.data_pipeline.shards.tars import labelled, picture, write_tar


def names(source, root: Path) -> list[str]:
    return [os.path.relpath(source.path(index), root) for index in range(len(source))]


def contents(source) -> list[bytes]:
    return [source.encoded(index).content for index in range(len(source))]


def error(data: Path | str, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        open_source(str(data), channels=3, split=split)
    assert caught.value.hint
    return caught.value.message


def test_images_in_the_order_of_the_tar_files_and_their_members(tmp_path: Path) -> None:
    write_tar(tmp_path / "s-10.tar", {"b.png": 0, "./a.WEBP": picture(1, "WEBP"), "._b.png": 9, "readme.txt": "x"})
    write_tar(tmp_path / "s-9.tar", {"c/d.jpeg": picture(2, "JPEG"), "c/d.json": "{}", ".git/x.png": 9})
    source = open_source(str(tmp_path), channels=3)
    assert names(source, tmp_path) == ["s-9.tar/c/d.jpeg", "s-10.tar/b.png", "s-10.tar/a.WEBP"]
    assert contents(source) == [picture(2, "JPEG"), picture(0), picture(1, "WEBP")]
    assert [source.encoded(index).extension for index in range(3)] == ["jpeg", "png", "webp"]
    assert source.labels is None and source.classes is None and source.notes == []
    assert source.open(1).size == (20, 16) and source.levels(1).shape == (16, 20, 3)
    assert open_source(str(tmp_path), channels=1).read(0).mode == "L"
    with pytest.raises(IndexError):
        source.encoded(3)


def test_labels_by_number_are_the_numbers_that_occur(tmp_path: Path) -> None:
    source = open_source(str(labelled(tmp_path / "x.tar", [10, 9, 10, 2])), channels=3)
    assert source.classes == ["2", "9", "10"]
    assert source.labels.dtype == np.int64 and source.labels.tolist() == [2, 1, 2, 0]


def test_labels_by_name_wherever_the_member_lies(tmp_path: Path) -> None:
    members = {"b.cls": "dog\n", "a.png": 0, "c/a.png": 1, "b.png": 2, "a.cls": "cat10", "c/a.cls": "cat9"}
    source = open_source(str(write_tar(tmp_path / "x.tar", members)), channels=3)
    assert source.classes == ["cat9", "cat10", "dog"] and source.labels.tolist() == [1, 0, 2]


@pytest.mark.parametrize("described", ["classes.txt", "pack.json"])
def test_class_names_that_lie_beside(tmp_path: Path, described: str) -> None:
    classes = ["tench", "goldfish", "white shark"]
    content = "\n".join(classes) if described == "classes.txt" else json.dumps({"classes": classes, "splits": {}})
    (tmp_path / described).write_text(content)
    labelled(tmp_path / "x-0.tar", [2, 0])
    source = open_source(str(tmp_path / "x-*.tar"), channels=3)
    assert source.classes == classes and source.labels.tolist() == [2, 0]
    labelled(tmp_path / "y-0.tar", ["goldfish", "white shark"])
    assert open_source(str(tmp_path / "y-0.tar"), channels=3).labels.tolist() == [1, 2]
    labelled(tmp_path / "z-0.tar", [1, 3])
    assert f"says 3, which is none of the 3 classes of {tmp_path / described}" in error(tmp_path / "z-0.tar")


def test_numbers_that_are_names_of_other_classes_too(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("1\n2\n3\n")
    assert open_source(str(labelled(tmp_path / "x.tar", [0, 2])), channels=3).labels.tolist() == [0, 2]
    assert open_source(str(labelled(tmp_path / "y.tar", [1, 3])), channels=3).labels.tolist() == [0, 2]
    shard = labelled(tmp_path / "z.tar", [1, 2])
    assert "can be names of classes in" in error(shard)
    (tmp_path / "classes.txt").write_text("0\n1\n2\n")
    assert open_source(str(shard), channels=3).labels.tolist() == [1, 2]


def test_an_image_without_a_label_among_others_leaves_no_labels(tmp_path: Path) -> None:
    members = {"a.png": 0, "a.cls": "1", "b.png": 1, "c.png": 2, "c.cls": b"\xff", "d.png": 3, "d.cls": "2"}
    source = open_source(str(write_tar(tmp_path / "x.tar", members)), channels=3)
    assert len(source) == 4 and source.labels is None and source.classes is None
    assert source.notes == ["2 of 4 images have no .cls member with a class: no labels."]


def test_folders_inside_a_tar_file_are_classes_as_those_of_a_folder_are(tmp_path: Path) -> None:
    members = {"set/dog/1.png": 0, "set/cat/2.png": 1, "set/dog/more/3.png": 2}
    source = open_source(str(write_tar(tmp_path / "x.tar", members)), channels=3)
    assert source.classes == ["cat", "dog"] and source.labels.tolist() == [1, 0, 1]
    assert source.notes == ["The classes are the folders inside the tar files."]
    write_tar(tmp_path / "flat.tar", {**members, "4.png": 3})
    assert open_source(str(tmp_path / "flat.tar"), channels=3).labels is None


def test_folders_that_number_the_tar_files_are_no_classes(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / "d" / f"{number}.tar", {f"part{number}/1.png": 0, f"part{number}/2.png": 1})
    source = open_source(str(tmp_path / "d"), channels=3)
    assert source.labels is None and source.notes == []
    for name in ("cat", "dog"):
        write_tar(tmp_path / "classes" / f"{name}.tar", {f"{name}/1.png": 0, f"{name}/2.png": 1})
    assert open_source(str(tmp_path / "classes"), channels=3).labels.tolist() == [0, 0, 1, 1]


def test_parts_inside_a_tar_file_are_named(tmp_path: Path) -> None:
    source = open_source(str(write_tar(tmp_path / "x.tar", {"train/1.png": 0, "val/1.png": 1})), channels=3)
    assert source.labels is None and source.notes == [
        "Folders train, val inside the tar files are not told apart; unpack them for that."
    ]


@pytest.mark.parametrize(
    ("members", "used"),
    [
        (["a.seg.png", "a.jpg", "a.depth.png"], ["a.jpg"]),
        (["a.mask.png", "a.image.png"], ["a.image.png"]),
        (["a.png", "a.jpg"], ["a.png"]),
        (["2021.05.01.jpg", "2021.05.02.jpg"], ["2021.05.01.jpg", "2021.05.02.jpg"]),
    ],
)
def test_which_image_of_a_sample_is_used(tmp_path: Path, members: list[str], used: list[str]) -> None:
    path = write_tar(tmp_path / "x.tar", {name: number for number, name in enumerate(members)})
    source = open_source(str(path), channels=3)
    assert names(source, path) == used
    assert any("such as" in note for note in source.notes) == (len(used) < len(members))


def test_a_member_that_was_appended_again_replaces_the_first(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / f"{n}.tar", {"a.png": n, f"b{n}.png": 5}) for n in range(2))
    (tmp_path / "both.tar").write_bytes(first.read_bytes() + second.read_bytes())
    source = open_source(str(tmp_path / "both.tar"), channels=3)
    assert names(source, tmp_path / "both.tar") == ["a.png", "b0.png", "b1.png"]
    assert contents(source)[0] == picture(1)


def test_parts_of_the_data(tmp_path: Path) -> None:
    labelled(tmp_path / "train-0.tar", ["a", "b", "a"])
    labelled(tmp_path / "val-0.tar", ["c", "b"], first=3)
    train = open_source(str(tmp_path), channels=3)
    assert train.labels.tolist() == [0, 1, 0] and train.classes == ["a", "b", "c"]
    assert train.name == f"{tmp_path} (train)" and train.notes == ["The images are those in train; val not used."]
    val = open_source(str(tmp_path), channels=3, split="test")
    assert val.labels.tolist() == [2, 1] and val.classes == train.classes
    everything = open_source(str(tmp_path), channels=3, split="all")
    assert contents(everything) == [picture(number) for number in range(5)]
    assert parts_of_images(str(tmp_path), everything) == ["train"] * 3 + ["val"] * 2
    first, second, sentence = open_splits(str(tmp_path), channels=3)
    assert (len(first), len(second)) == (3, 2) and sentence.startswith("The data's own split")
    assert not first.notes and own_parts(str(tmp_path)) == ["train", "val"]
    alone = open_source(str(tmp_path / "train-*.tar"), channels=3)
    assert alone.fingerprint == train.fingerprint != everything.fingerprint
    assert "has no test part" in error(tmp_path / "train-0.tar", "test")


def test_parts_in_folders_of_their_own(tmp_path: Path) -> None:
    labelled(tmp_path / "train" / "0.tar", [0, 1])
    labelled(tmp_path / "val" / "0.tar", [1])
    (tmp_path / "classes.txt").write_text("zero\none\n")
    assert open_source(str(tmp_path), channels=3, split="test").labels.tolist() == [1]
    assert open_source(str(tmp_path / "val"), channels=3).classes == ["zero", "one"]


def test_a_pack_says_what_belongs_to_it(tmp_path: Path) -> None:
    for name, label in (("a.tar", 0), ("b.tar", 1), ("left-over.tar", 7)):
        labelled(tmp_path / name, [label])
    splits = {"val": [{"file": "a.tar"}], "train": [{"file": "b.tar"}]}
    (tmp_path / "pack.json").write_text(json.dumps({"classes": ["x", "y"], "splits": splits}))
    assert open_source(str(tmp_path), channels=3).labels.tolist() == [1]
    assert open_source(str(tmp_path), channels=3, split="test").labels.tolist() == [0]
    (tmp_path / "a.tar").unlink()
    assert error(tmp_path) == f"{tmp_path} lacks a.tar."
    (tmp_path / "pack.json").write_text("{")
    assert "pack.json cannot be read as what `ibot data pack` writes" in error(tmp_path)


def test_another_process_reads_the_same(tmp_path: Path) -> None:
    labelled(tmp_path / "x.tar", [1, 2, 3])
    source = open_source(str(tmp_path / "x.tar"), channels=3)
    source.encoded(0)
    copy = pickle.loads(pickle.dumps(source))
    assert contents(copy) == contents(source) and copy.fingerprint == source.fingerprint
    assert copy.labels.tolist() == [0, 1, 2]


def test_no_more_files_are_open_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        labelled(tmp_path / "d" / f"{number}.tar", [number])
    monkeypatch.setattr(random_file, "MOST_OPEN", 2)
    source = open_source(str(tmp_path / "d"), channels=3)
    assert contents(source) == [picture(0)] * 6 == contents(source)
    numbers = [file._number for file in source._files._files.values()]
    assert len(numbers) == 2 and all(os.fstat(number) for number in numbers)
    del source
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_the_index_is_kept_and_only_changed_tar_files_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: str):
        read.append(Path(path).name)
        return read_shard(path)

    read_shard = index_module.read_shard
    monkeypatch.setattr(index_module, "read_shard", counted)
    for name in "ab":
        labelled(tmp_path / "d" / f"{name}.tar", [name, "c"])
    first = open_source(str(tmp_path / "d"), channels=3)
    assert sorted(read) == ["a.tar", "b.tar"]
    second = open_source(str(tmp_path / "d"), channels=3)
    assert len(read) == 2 and second.fingerprint == first.fingerprint
    assert names(second, tmp_path) == names(first, tmp_path) and second.labels.tolist() == [0, 2, 1, 2]
    labelled(tmp_path / "d" / "b.tar", ["z", "y", "x"])
    third = open_source(str(tmp_path / "d"), channels=3)
    assert sorted(read) == ["a.tar", "b.tar", "b.tar"] and third.classes == ["a", "c", "x", "y", "z"]
    assert third.fingerprint != first.fingerprint
    (cached,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("*.index")
    cached.write_bytes(cached.read_bytes()[:-9])
    assert open_source(str(tmp_path / "d"), channels=3).fingerprint == third.fingerprint
    assert len(read) == 5


def test_a_moved_set_keeps_its_fingerprint(tmp_path: Path) -> None:
    labelled(tmp_path / "a" / "x.tar", [1, 2])
    before = open_source(str(tmp_path / "a"), channels=3).fingerprint
    (tmp_path / "a").rename(tmp_path / "b")
    assert open_source(str(tmp_path / "b"), channels=3).fingerprint == before
    os.utime(tmp_path / "b" / "x.tar", (1, 1))
    assert open_source(str(tmp_path / "b"), channels=3).fingerprint != before


def test_a_tar_file_that_changes_during_a_run_is_caught(tmp_path: Path) -> None:
    path = labelled(tmp_path / "x.tar", [1, 2])
    source = open_source(str(path), channels=3)
    source.encoded(0)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(UnreadableImage, match=r"x\.tar/00000\.png: the tar file changed since the data were opened"):
        source.encoded(0)
    path.unlink()
    with pytest.raises(UnreadableImage, match=r"changed|cannot be read"):
        pickle.loads(pickle.dumps(source)).encoded(1)


def test_what_is_wrong_with_a_tar_file(tmp_path: Path) -> None:
    good = labelled(tmp_path / "good.tar", [1, 2]).read_bytes()
    for name, content, text in [
        ("zip.tar", b"PK\x03\x04" + b"x" * 600, "is a zip file, whatever its name says"),
        ("gz.tar", b"\x1f\x8b" + b"x" * 600, "is a gzip file"),
        ("html.tar", b"<!DOCTYPE html><html>" + b" " * 600, "is a web page (HTML), not a tar file"),
        ("lfs.tar", b"version https://git-lfs.github.com/spec/v1\n" + b" " * 600, "is a Git LFS pointer"),
        ("empty.tar", b"", "is empty"),
        ("noise.tar", b"x" * 2000, "is not a tar file"),
        ("zeros.tar", bytes(10240), "holds no image."),
        ("short.tar", good[:600], "is cut off in 00000.png: its 0 complete images are used"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert text in error(tmp_path / name), name


def test_what_is_complete_in_a_damaged_tar_file_is_used_and_told(tmp_path: Path) -> None:
    good = labelled(tmp_path / "d" / "a.tar", [1, 2]).read_bytes()
    (tmp_path / "d" / "b.tar").write_bytes(good[:4000])
    (tmp_path / "d" / "c.tar").write_bytes(good[:3072] + b"x" + good[3073:])
    source = open_source(str(tmp_path / "d"), channels=3)
    assert names(source, tmp_path / "d") == ["a.tar/00000.png", "a.tar/00001.png", "b.tar/00000.png", "c.tar/00000.png"]
    assert source.notes[:2] == [
        "b.tar is cut off in 00001.png: its 1 complete images are used; fetch it again for the rest.",
        "c.tar is damaged at byte 3,072: its 1 complete images are used, none after it.",
    ]


@pytest.mark.parametrize("rest", [b"0", b"x" * 600], ids=["cut", "damaged"])
def test_an_image_whose_label_was_cut_off_does_not_cost_the_others_theirs(tmp_path: Path, rest: bytes) -> None:
    content = labelled(tmp_path / "a.tar", [1, 2, 3]).read_bytes()
    (tmp_path / "b.tar").write_bytes(content[: content.index(b"00002.cls")] + rest)
    source = open_source(str(tmp_path / "b.tar"), channels=3)
    assert source.labels.tolist() == [0, 1] and "its 2 complete images are used" in source.notes[0]
    (tmp_path / "c.tar").write_bytes(content[: content.index(b"00000.cls") + 512] + rest)
    assert len(open_source(str(tmp_path / "c.tar"), channels=3)) == 1


def test_many_damaged_tar_files_take_a_few_lines(tmp_path: Path) -> None:
    good = labelled(tmp_path / "d" / "0.tar", [1, 2]).read_bytes()
    for number in range(1, 9):
        (tmp_path / "d" / f"{number}.tar").write_bytes(good[:4000])
    notes = open_source(str(tmp_path / "d"), channels=3).notes
    assert len(notes) == 4 and notes[-1] == "5 more tar files are cut off or damaged."


def test_tar_files_of_something_else(tmp_path: Path) -> None:
    inner = labelled(tmp_path / "inner.tar", [1]).read_bytes()
    message = error(write_tar(tmp_path / "outer.tar", {"n01.tar": inner, "n02.tar": inner, "words.txt": "x"}))
    assert message.endswith("holds no image, but other members (2 .tar, 1 .txt).")


def test_damaged_images_name_the_member(tmp_path: Path) -> None:
    source = open_source(str(write_tar(tmp_path / "x.tar", {"a/b.png": "no image"})), channels=3)
    with pytest.raises(UnreadableImage, match=r"x\.tar/a/b\.png: not an image"):
        source.levels(0)


def test_data_without_opening_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled(tmp_path / "x-0.tar", [1])
    monkeypatch.chdir(tmp_path)
    stored = anywhere("x-{0,0}.tar")
    assert stored == f"{tmp_path}/x-{{0,0}}.tar" and anywhere("x-0.tar") == str(tmp_path / "x-0.tar")
    assert anywhere("builtin:digits") == "builtin:digits" and anywhere("hf:some/name") == "hf:some/name"
    (tmp_path / "saved").mkdir()
    assert anywhere("hf:saved") == f"hf:{tmp_path}/saved"
    assert is_here(stored) and is_here(str(tmp_path)) and not is_here(f"{tmp_path}/y-*.tar")
    shutil.rmtree(tmp_path / "saved")
    assert not is_here(str(tmp_path / "saved"))


def test_parts_of_a_table_are_known_image_by_image(tmp_path: Path) -> None:
    shard = labelled(tmp_path / "x.tar", [0, 1])
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png")
    table = tmp_path / "images.csv"
    table.write_text(f"path,split\na.png,test\nb.png,train\n{shard}/00001.png,train\n")
    everything = open_source(str(table), channels=3, split="all")
    shown = {
        Path(everything.path(place)).name: part for place, part in enumerate(parts_of_images(str(table), everything))
    }
    assert shown == {"a.png": "test", "b.png": "train", "00001.png": "train"}
    assert len(contents(everything)) == 3

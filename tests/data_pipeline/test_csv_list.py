import os
from pathlib import Path

import numpy as np
import pytest

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.files import NoTestPart
from ibot_cli.data.places import own_parts
from ibot_cli.data.sources import Source, Split, open_source
from ibot_cli.data.splits import open_splits, parts_of_images
from ibot_cli.errors import DataError
from tests.data_pipeline.images import write_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "im", 5)
    return tmp_path


def table(folder: Path, text: str | bytes, name: str = "list.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def opened(data: str, split: Split = "train") -> Source:
    return open_source(data, channels=3, split=split)


def found(source: Source, folder: Path) -> list[str]:
    return [os.path.relpath(source.path(index), folder / "im") for index in range(len(source))]


def refused(data: str, split: Split = "train") -> str:
    with pytest.raises(DataError) as caught:
        opened(data, split)
    assert caught.value.hint
    return caught.value.message.removeprefix(data)


def test_path_and_label(images: Path) -> None:
    source = opened(table(images, 'path,label\nim/1.png,dog\n\nim/0.png,"cat, black"\nim/3.png, dog \n'))
    assert found(source, images) == ["1.png", "0.png", "3.png"] and source.classes == ["cat, black", "dog"]
    assert source.labels is not None and source.labels.dtype == np.int64 and source.labels.tolist() == [1, 0, 1]
    assert source.read(0).size == (20, 16) and source.notes == []


def test_classes_are_in_natural_order(images: Path) -> None:
    source = opened(table(images, "path,label\nim/0.png,10\nim/1.png,9\nim/2.png,a1\nim/3.png,9\n"))
    assert source.classes == ["9", "10", "a1"] and source.labels is not None
    assert source.labels.tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"\xef\xbb\xbfpath,label\r\nim/0.png,a\r\nim/1.png,b\r\n", "x.csv"),
        ("PATH\tLabel\nim/0.png\ta\nim/1.png\tb\n", "x.tsv"),
        ("label;File_Name\na;im/0.png\nb;im/1.png", "X.CSV"),
        ("im/0.png,a\nim/1.png,b\n", "x.csv"),
        ("class,image\na,im/0.png\n,,\n \nb,im/1.png\n", "x.csv"),
        ('"path", "label"\n"im/0.png", "a"\n"im/1.png", "b"\n', "x.csv"),
    ],
    ids=["bom", "tabs", "semicolons", "no header", "other names and empty lines", "quoted"],
)
def test_ways_to_write_it(images: Path, text: str | bytes, name: str) -> None:
    source = opened(table(images, text, name))
    assert found(source, images) == ["0.png", "1.png"] and source.classes == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["path\nim/0.png\n", "path,label\nim/0.png,a\n", "path,label\nim/0.png,\n", "im/0.png"]
)
def test_without_labels(images: Path, text: str) -> None:
    source = opened(table(images, text))
    assert len(source) == 1 and source.labels is None and source.classes is None


@pytest.mark.parametrize(("columns", "notes"), [("id,path,Width", ["Columns not used: id, width."]), (",path,", [])])
def test_other_columns_are_told(images: Path, columns: str, notes: list[str]) -> None:
    source = opened(table(images, f"{columns}\n7,im/0.png,20\n8,im/1.png,20\n"))
    assert source.notes == notes and len(source) == 2


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("im/0.png\nim/1.png\nim/0.png\n", "1 line names a file that an earlier line names too; it counts each time."),
        ("im/0.png\n" * 3, "2 lines name a file that an earlier line names too; it counts each time."),
    ],
)
def test_paths_that_come_again_are_told(images: Path, text: str, note: str) -> None:
    for data in (table(images, f"path\n{text}"), table(images, text, "list.txt")):
        assert opened(data).notes == [note] and len(opened(data)) == 3


def test_the_part_of_each_image_where_both_have_one(images: Path) -> None:
    data = table(images, "path,split\nim/0.png,val\nim/1.png,train\nim/0.png,train\nim/2.png,test\n")
    assert parts_of_images(data, opened(data, "all")) == ["val", "train", "train", "test"]


def test_paths_are_relative_to_the_table_or_absolute(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "lists").mkdir()
    data = table(images / "lists", f"path\n../im/0.png\n{images}/im/1.png\n")
    monkeypatch.chdir(images / "lists")
    assert found(opened(data), images) == found(opened("list.csv"), images) == ["0.png", "1.png"]


def test_names_that_are_no_utf_8(images: Path) -> None:
    name = os.fsencode(images / "im") + b"/\xe9.png"
    Path(os.fsdecode(name)).write_bytes((images / "im/0.png").read_bytes())
    source = opened(table(images, b"path,label\nim/\xe9.png,\xe9\nim/0.png,e\n"))
    assert source.read(0).size == (20, 16) and len(source.fingerprint) == 64 and len(set(source.classes or [])) == 2


def test_a_missing_file_names_its_line(images: Path) -> None:
    source = opened(table(images, "path\nim/0.png\n\nim/9.png\n"))
    with pytest.raises(UnreadableImage) as caught:
        source.read(1)
    assert caught.value.path == f"{images}/im/9.png (line 4)" and source.read(0)


SPLITS = "split,path,label\nval,im/0.png,b\nTrain,im/1.png,a\ntest,im/2.png,c\ntrain,im/3.png,b\nval,im/4.png,a\n"


def test_splits(images: Path) -> None:
    data = table(images, SPLITS)
    parts = [opened(data, split) for split in ("train", "test", "all")]
    assert [found(part, images) for part in parts] == [
        ["1.png", "3.png"],
        ["0.png", "4.png"],
        [f"{index}.png" for index in range(5)],
    ]
    assert [part.labels.tolist() for part in parts if part.labels is not None] == [[0, 1], [1, 0], [1, 0, 2, 1, 0]]
    assert all(part.classes == ["a", "b", "c"] for part in parts)
    assert [part.name for part in parts] == [f"{data} (train)", f"{data} (val)", f"{data} (train, val, test)"]
    assert parts[0].notes == ["The images are those in lines with split train; val, test not used."]
    assert own_parts(data) == ["train", "val", "test"]
    assert open_splits(data, channels=3)[2] == "The data's own split: 2 training and 2 test images."


def test_a_hold_out_where_there_is_no_split(images: Path) -> None:
    data = table(images, "path,label\n" + "".join(f"im/{index}.png,{index % 2}\n" for index in range(5)))
    train, test, sentence = open_splits(data, channels=3)
    assert (len(train), len(test)) == (3, 2) and "stratified hold-out" in sentence and own_parts(data) == []
    with pytest.raises(NoTestPart, match="has no test part") as caught:
        opened(data, "test")
    assert caught.value.hint == "Give it a column `split` that says train or val for each image."


def test_all_of_it_may_be_one_part(images: Path) -> None:
    data = table(images, "path,split\nim/0.png,train\nim/1.png,train\n")
    assert len(opened(data)) == 2 and opened(data).notes == [] and own_parts(data) == []
    other = table(images, "path,split\nim/0.png,val\nim/1.png,test\n")
    assert refused(other) == " has no line with the split train, only val, test."
    assert refused(other, "test") == " has no test part."
    assert len(opened(other, "all")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " is empty."),
        ("\n \n", " is empty."),
        ("path,label\n", " lists no image, only column names."),
        ("name,label\nim/0.png,a\n", " has no column `path`; its columns are name, label."),
        ("im/0.png,a,train\n", " has 3 columns and no line of column names."),
        ("path,label,Path\nim/0.png,a,x\n", " has the column `path` twice."),
        ("path,label\nim/0.png,a\nim/1.png\n", ", line 3, has 1 cells where there are 2 columns."),
        ("path,label\nim/0.png,a,b\n", ", line 2, has 3 cells where there are 2 columns."),
        ("path,label\nim/0.png,a\n,b\n", ", line 3, has no path."),
        ("path,label\nim/0.png,a\n\nim/1.png,\n", ", line 4, has no label."),
        ("path,split\nim/0.png,train\nim/1.png,dev\n", ", line 3, has the split `dev`."),
        ("path,split\nim/0.png,train\nim/1.png,\n", ", line 3, has no split."),
        ('path,label\n"im/0.png"x,a\n', ", line 2: ',' expected after '\"'."),
        ('path,label\n"im/0.png,a\n', ", line 2: unexpected end of data."),
        ("path,label\nno/0.png,a\nno/1.png,b\n", "None of the 2 files listed in "),
        ("path\0", " is not a text file in UTF-8."),
        ("path\n".encode("utf-16"), " is not a text file in UTF-8."),
    ],
)
def test_what_is_wrong_is_told_with_its_line(images: Path, text: str | bytes, message: str) -> None:
    told = refused(table(images, text))
    assert told.startswith(message) if message.startswith("None") else told == message


def test_a_table_that_cannot_be_read(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(images, "path\n")

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert refused(data) == " cannot be read: Permission denied."


def test_a_table_that_changed_is_read_again(images: Path) -> None:
    data = table(images, "path\nim/0.png\n")
    assert len(opened(data)) == 1
    table(images, "path\nim/0.png\nim/1.png\n")
    assert len(opened(data)) == 2

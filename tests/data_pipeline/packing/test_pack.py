import errno
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibot_cli.data.packing import pack as pack_module
from ibot_cli.data.packing import sample as sample_module
from ibot_cli.data.packing import shard_writer
from ibot_cli.data.packing.place import claimed
from ibot_cli.data.sources import open_source
from ibot_cli.errors import DataError, RunError
from ibot_cli.lock import FolderLock
from tests.data_pipeline.packing.packs import (
    everything,
    packed,
    photograph,
    photographs,
    samples,
    stored,
    write,
)

SHARDS = {"short_side": 40, "shard_bytes": 8_000}  # a few images in each


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_copies_in_the_order_of_the_source_with_labels(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 7)
    result = packed(data, tmp_path / "out", copy=True, shard_bytes=12_000)
    source = open_source(str(data), channels=3)
    found = samples(tmp_path / "out")
    assert list(found) == [f"{Path(source.path(i)).parent.name}/img{i}" for i in range(7)]
    assert [sample["jpg"] for sample in found.values()] == [Path(source.path(i)).read_bytes() for i in range(7)]
    assert [int(sample["cls"]) for sample in found.values()] == source.labels.tolist()  # type: ignore[union-attr]
    about = json.loads((tmp_path / "out" / "pack.json").read_bytes())
    shards = about["splits"]["train"]
    assert len(shards) > 2 and about["classes"] == ["china", "flower"] and about["version"] == 1
    assert [(tmp_path / "out" / shard["file"]).stat().st_size for shard in shards] == [s["bytes"] for s in shards]
    assert all(shard["bytes"] <= 12_000 for shard in shards)
    assert (result.images, result.classes, result.kept) == ({"train": 7}, 2, 7)
    assert result.stored_bytes == sum(map(len, files_of(data).values()))
    assert sorted(everything(tmp_path / "out")) == sorted(["pack.json", *(shard["file"] for shard in shards)])


def test_both_parts_are_packed_and_opened_again_as_they_were(tmp_path: Path) -> None:
    data = tmp_path / "data"
    photographs(data / "train", 6)
    photographs(data / "val", 2)
    result = packed(data, tmp_path / "out", copy=True)
    assert result.images == {"train": 6, "val": 2}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["train-000000.tar", "val-000000.tar"]
    for split in ("train", "test"):
        before = open_source(str(data), channels=3, split=split)
        after = open_source(str(tmp_path / "out"), channels=3, split=split)
        assert [after.levels(i).tobytes() for i in range(len(after))] == [
            before.levels(i).tobytes() for i in range(len(before))
        ]
        assert (after.classes, after.labels.tolist()) == (before.classes, before.labels.tolist())  # type: ignore[union-attr]


def test_labels_keep_their_places_where_classes_are_called_by_numbers(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 6, ("1", "2", "3"))
    for file in (data / "1").iterdir():
        file.write_bytes(b"damaged")
    packed(data, tmp_path / "out", copy=True)
    source = open_source(str(tmp_path / "out"), channels=3)
    assert source.classes == ["1", "2", "3"] and source.labels.tolist() == [1, 1, 2, 2]  # type: ignore[union-attr]
    assert open_source(str(tmp_path / "out" / "*.tar"), channels=3).labels.tolist() == [1, 1, 2, 2]  # type: ignore[union-attr]


def test_packing_a_copy_of_a_pack_gives_the_same_pack(tmp_path: Path) -> None:
    packed(photographs(tmp_path / "data", 6), tmp_path / "a", copy=True, shard_bytes=12_000)
    packed(tmp_path / "a", tmp_path / "b", copy=True, shard_bytes=12_000)
    first, second = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert {name: first[name] for name in first if name != "pack.json"} == {
        name: second[name] for name in second if name != "pack.json"
    }


def test_lists_and_images_without_labels(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / "x" / f"a{index}.jpg", stored(photograph(30, 20, index), "JPEG"))
    write(tmp_path / "list.txt", b"x/a2.jpg\nx/a0.jpg\n")
    assert packed(tmp_path / "list.txt", tmp_path / "out").classes is None
    assert {key: sorted(sample) for key, sample in samples(tmp_path / "out").items()} == {"a2": ["jpg"], "a0": ["jpg"]}


def test_folders_in_a_list_do_not_become_classes(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write(tmp_path / name / "a.jpg", stored(photograph(30, 20), "JPEG"))
    write(tmp_path / "list.txt", b"x/a.jpg\ny/a.jpg\n")
    packed(tmp_path / "list.txt", tmp_path / "out")
    assert list(samples(tmp_path / "out")) == ["x/a", "y/a"]
    assert open_source(str(tmp_path / "out"), channels=3).labels is None


def test_the_bytes_are_the_same_for_any_number_of_workers_and_at_any_time(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 10)
    packed(data, tmp_path / "a", **SHARDS)
    packed(data, tmp_path / "b", workers=2, **SHARDS)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def test_a_finished_pack_is_left_as_it_is(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 4)
    first = packed(data, tmp_path / "out", **SHARDS)
    before = everything(tmp_path / "out")
    again = packed(data, tmp_path / "out", **SHARDS)
    assert again.finished_before and not first.finished_before
    assert (again.images, again.stored_bytes, again.packed_bytes) == (
        first.images,
        first.stored_bytes,
        first.packed_bytes,
    )
    assert everything(tmp_path / "out") == before


class Kills:
    """Sends a signal at the given event; images done, shards named and JSON files written are events."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self._left, self._act = at, act

    def event(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def patched(*args: Any) -> Any:
            self.event()
            result = function(*args)
            self.event()
            return result

        return patched


def pack_until(data: Path, out: Path, at: int, act: Callable[[], None]) -> bool:
    """Whether it came to the end before event number `at`."""
    kills = Kills(at, act)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "rename", kills.around(shard_writer.rename))
        patch.setattr(pack_module.Journal, "save", kills.around(pack_module.Journal.save))
        patch.setattr(pack_module, "write_json", kills.around(pack_module.write_json))
        packed(data, out, report=kills.event, **SHARDS)
    return kills._left > 0


def interrupt() -> None:
    raise KeyboardInterrupt


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def check_stopped(out: Path, whole: dict[str, bytes]) -> None:
    """Nothing half-written has the name of a shard, and the pack is no data set before it is complete."""
    for name, content in everything(out).items() if out.exists() else ():
        assert not name.endswith(".tar") or content == whole[name]
    if (out / "unfinished.json").exists() and not (out / "pack.json").exists() and list(out.glob("*.tar")):
        with pytest.raises(DataError, match="interrupted"):
            open_source(str(out), channels=3)


@pytest.mark.slow
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 6)
    packed(data, tmp_path / "whole", **SHARDS)
    whole, at, complete = everything(tmp_path / "whole"), 0, False
    assert len(whole) > 3
    while not complete:
        at, out = at + 1, tmp_path / f"out{at}"
        try:
            complete = pack_until(data, out, at, interrupt)
        except KeyboardInterrupt:
            check_stopped(out, whole)
            assert not list(out.glob(".*tmp"))
        packed(data, out, **SHARDS)
        assert everything(out) == whole
    assert at > 20


@pytest.mark.parametrize("at", [6, 9])
def test_stopped_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path: Path, at: int) -> None:
    data = photographs(tmp_path / "data", 5)
    packed(data, tmp_path / "whole", **SHARDS)
    whole, out = everything(tmp_path / "whole"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack_until(data, out, at, interrupt)
    check_stopped(out, whole)
    packed(data, out, workers=1, **SHARDS)
    assert everything(out) == whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "at", [5, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11))]
)
def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path, at: int) -> None:
    data = photographs(tmp_path / "data", 4)
    packed(data, tmp_path / "whole", **SHARDS)
    whole, out = everything(tmp_path / "whole"), tmp_path / "out"
    child = multiprocessing.get_context("fork").Process(target=pack_until, args=(data, out, at, kill))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    check_stopped(out, whole)
    packed(data, out, **SHARDS)
    assert everything(out) == whole


def test_an_interrupted_pack_is_no_data_set(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 6)
    with pytest.raises(KeyboardInterrupt):
        pack_until(data, tmp_path / "out", 10, interrupt)
    assert list((tmp_path / "out").glob("*.tar"))
    with pytest.raises(DataError, match="out is a pack that was interrupted: images are missing") as caught:
        open_source(str(tmp_path / "out"), channels=3)
    assert "the same `ibot data pack` again" in str(caught.value.hint)


def test_complete_shards_are_not_packed_again(tmp_path: Path) -> None:
    data, done = photographs(tmp_path / "data", 6), []
    with pytest.raises(KeyboardInterrupt):
        pack_until(data, tmp_path / "out", 10, interrupt)
    stop = json.loads((tmp_path / "out" / "unfinished.json").read_bytes())["shards"][-1]["stop"]
    packed(data, tmp_path / "out", report=lambda split, number, total: done.append(number), **SHARDS)
    assert stop > 0 and done == list(range(stop, 7))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"quality": 80}, r"other options \(quality: 92 there, 80 now\)"),
        ({"copy": True}, r"other options \(copy: False there, True now\)"),
    ],
)
def test_other_options_than_those_of_the_interrupted_pack_are_refused(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    data = photographs(tmp_path / "data", 6)
    with pytest.raises(KeyboardInterrupt):
        pack_until(data, tmp_path / "out", 10, interrupt)
    with pytest.raises(DataError, match=f"holds the interrupted pack of {why}") as caught:
        packed(data, tmp_path / "out", **{**SHARDS, **change})
    assert "delete" in str(caught.value.hint) and "the same options" in str(caught.value.hint)


@pytest.mark.parametrize("finished", [False, True])
def test_changed_images_are_refused(tmp_path: Path, finished: bool) -> None:
    data = photographs(tmp_path / "data", 6)
    if finished:
        packed(data, tmp_path / "out", **SHARDS)
    else:
        with pytest.raises(KeyboardInterrupt):
            pack_until(data, tmp_path / "out", 10, interrupt)
    write(data / "china" / "new.jpg", stored(photograph(30, 20), "JPEG"))
    with pytest.raises(DataError, match="other images, or they changed since") as caught:
        packed(data, tmp_path / "out", **SHARDS)
    assert "another folder" in str(caught.value.hint)


def test_a_shard_that_was_touched_since_is_refused(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 6)
    with pytest.raises(KeyboardInterrupt):
        pack_until(data, tmp_path / "out", 12, interrupt)
    (tmp_path / "out" / "images-000000.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"images-000000\.tar is not the shard that was written there"):
        packed(data, tmp_path / "out", **SHARDS)


@pytest.mark.parametrize("name", ["unfinished.json", "pack.json"])
def test_damaged_records_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "out" / name, b"{")
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        packed(photographs(tmp_path / "data", 2), tmp_path / "out")


def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 2)
    write(tmp_path / "out" / "thesis.txt", b"x")
    with pytest.raises(DataError, match=r"out holds other things, such as thesis\.txt"):
        packed(data, tmp_path / "out")
    assert everything(tmp_path / "out") == {"thesis.txt": b"x"}
    with pytest.raises(DataError, match=r"thesis\.txt is a file"):
        packed(data, tmp_path / "out" / "thesis.txt")
    with pytest.raises(DataError, match=r"thesis\.txt/x cannot be written"):
        packed(data, tmp_path / "out" / "thesis.txt" / "x")


def test_a_pack_does_not_lie_in_its_own_data(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 2)
    for out in (data, data / "packed"):
        with pytest.raises(DataError, match="lies in the data"):
            packed(data, out)
        with pytest.raises(DataError, match="lies in the data"), claimed(out, f"hf:{data}"):
            pass
    assert not (data / "packed").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    data, out = photographs(tmp_path / "data", 2), tmp_path / "out"
    out.mkdir()
    with FolderLock(out / ".lock"), pytest.raises(RunError, match="in use by process"):
        packed(data, out)


def test_unreadable_files_are_left_out_and_named(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 6)
    for name in ("china/img1.jpg", "flower/img5.jpg"):
        write(data / name, b"junk")
    result = packed(data, tmp_path / "out", **SHARDS)
    assert list(samples(tmp_path / "out")) == ["china/img0", "china/img2", "flower/img3", "flower/img4"]
    about = json.loads((tmp_path / "out" / "pack.json").read_bytes())
    assert [Path(path).name for path in about["unreadable"]] == ["img1.jpg", "img5.jpg"]
    assert about["unreadable"] == result.unreadable
    assert "not an image" in str(about["unreadable"])


def test_too_many_unreadable_files_stop_it(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 14)
    for index in range(11):
        write(next(data.rglob(f"img{index}.jpg")), b"junk")
    with pytest.raises(
        DataError, match=r"11 of 14 files cannot be read; packing stops above 10 files and 0\.01"
    ) as caught:
        packed(data, tmp_path / "out")
    assert "img10.jpg" in caught.value.message


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jpg", b"junk")
    with pytest.raises(DataError, match="No readable image"):
        packed(tmp_path / "data", tmp_path / "out")


class FullDisk:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, path: Path, room: int) -> None:
        self._file, self._room = path.open("wb"), room

    def write(self, content: bytes) -> int:
        self._room -= len(content)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_stops_it_with_nothing_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out, opened = photographs(tmp_path / "data", 6), tmp_path / "out", []

    def open_file(path: Path) -> FullDisk:
        opened.append(path)
        return FullDisk(path, 20_000 if len(opened) == 1 else 5_000)

    packed(data, tmp_path / "whole", **SHARDS)
    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "open_file", open_file)
        with pytest.raises(DataError, match=r"out cannot be written: No space left on device") as caught:
            packed(data, out, **SHARDS)
    assert "goes on" in str(caught.value.hint)
    assert sorted(everything(out)) == [".lock", "images-000000.tar", "unfinished.json"]
    packed(data, out, **SHARDS)
    assert everything(out) == everything(tmp_path / "whole")


def test_a_disk_that_is_too_small_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(sample_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"will take about [0-9.]+ KB; .*out has 1\.0 KB left"):
        packed(photographs(tmp_path / "data", 4), tmp_path / "out", **SHARDS)
    assert not (tmp_path / "out").exists()


def test_decode_times_are_told_where_images_were_encoded_anew(tmp_path: Path) -> None:
    data = photographs(tmp_path / "data", 4)
    smaller = packed(data, tmp_path / "a", **SHARDS).decode_ms
    assert smaller is not None and min(smaller) > 0
    assert packed(data, tmp_path / "b", copy=True).decode_ms is None


@pytest.mark.slow
def test_embedded_images_come_back_as_they_were(tmp_path: Path) -> None:
    packed("builtin:digits", tmp_path / "out")
    before = open_source("builtin:digits", channels=1, split="test")
    after = open_source(str(tmp_path / "out"), channels=1, split="test")
    assert len(after) == 360 and after.labels.tolist() == before.labels.tolist()  # type: ignore[union-attr]
    assert all(np.array_equal(after.levels(i), before.levels(i)) for i in range(0, 360, 40))


def test_repaired_images_go_into_the_folder_of_a_pack_that_had_no_shard(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jpg", b"junk")
    with pytest.raises(DataError, match="No readable image"):
        packed(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write(tmp_path / "data" / "a.jpg", next(photographs(tmp_path / "other", 1).rglob("*.jpg")).read_bytes())
    assert packed(tmp_path / "data", tmp_path / "out").images == {"train": 1}

import os
import pickle
import shutil
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from ibot_cli.cache_folder import cache_folder
from ibot_cli.data.decode import PixelFormat, UnreadableImage
from ibot_cli.data.files import CHANGED
from ibot_cli.data.folders import open_folder
from ibot_cli.data.indexing import folder_index as module
from ibot_cli.data.indexing.folder_index import open_index
from ibot_cli.data.sources import FileSource, Subset, known_fingerprint, open_source
from tests.data_pipeline.images import write_image

LONG_AGO = 1_600_000_000


def settle(root: Path) -> Path:
    """Give everything an old modification time: what has just changed is not cached."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("b/2.png", "b/10.png", "a/more/1.png", "a/readme.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "a/gone.png").symlink_to("nowhere")
    (root / "z").symlink_to("b")
    return settle(root)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scans that were needed."""
    asked: list[str] = []
    monkeypatch.setattr(module, "scan_images", lambda root, start: asked.append(start) or module_scan(root, start))
    return asked


module_scan = module.scan_images
NAMES = ["a/more/1.png", "b/2.png", "b/10.png"]


def opened(root: Path) -> FileSource:
    return open_folder(root, str(root), pixels=PixelFormat(), split="train")


def entry() -> Path:
    (path,) = cache_folder("folders").iterdir()
    return path


def test_the_second_time_is_like_the_first_without_a_scan(tree: Path, scans: list[str]) -> None:
    first, second = opened(tree), opened(tree)
    assert scans == [""]
    for source in (first, second):
        assert [source.path(index) for index in range(3)] == [str(tree / name) for name in NAMES]
        assert source.classes == ["a", "b"]
        assert source.labels is not None and source.labels.tolist() == [0, 1, 1] and source.labels.dtype == np.int64
        assert source.notes == [
            "1 symbolic link without a target left out.",
            "1 folder reached twice through links, read once.",
        ]
    assert first.fingerprint == second.fingerprint == opened(tree).fingerprint and scans == [""]


def add(root: Path) -> None:
    (root / "a/more/2.png").write_bytes(b"")


def remove(root: Path) -> None:
    (root / "b/2.png").unlink()


def rename(root: Path) -> None:
    (root / "b/2.png").rename(root / "b/3.png")


def move(root: Path) -> None:
    (root / "b/2.png").rename(root / "a/more/2.png")


def swap_for_a_folder(root: Path) -> None:
    (root / "b/2.png").unlink()
    (root / "b/2.png").mkdir()


def mend_a_link(root: Path) -> None:
    (root / "a/nowhere").write_bytes(b"")


def retarget(root: Path) -> None:
    (root / "z").unlink()
    (root / "z").symlink_to("a")


@pytest.mark.parametrize("change", [add, remove, rename, move, swap_for_a_folder, mend_a_link, retarget])
def test_a_changed_folder_is_read_again(tree: Path, scans: list[str], change) -> None:
    opened(tree)
    change(tree)
    found = opened(tree)
    fresh = module_scan(tree)
    assert scans == ["", ""]
    assert [found.path(index) for index in range(len(found))] == [str(tree / name) for name in fresh.names]
    assert found.notes == fresh.notes()


@pytest.mark.parametrize("change", [add, remove, rename, move])
def test_changed_listings_count_where_times_do_not_tell(tree: Path, scans: list[str], change) -> None:
    """Copying tools put folders' times back, and some file systems never change them."""
    opened(tree)
    change(tree)
    settle(tree)
    assert len(opened(tree)) == len(module_scan(tree).names) and scans == ["", ""]


def test_a_touched_folder_is_read_again(tree: Path, scans: list[str]) -> None:
    opened(tree)
    os.utime(tree / "a/more", (LONG_AGO, LONG_AGO + 1))
    assert len(opened(tree)) == 3 and scans == ["", ""]


def test_links_out_of_the_folder_are_followed_each_time(tree: Path, tmp_path: Path, scans: list[str]) -> None:
    """Where a link leads can change without a trace in the folder that holds it."""
    one = tmp_path / "one"
    one.mkdir()
    (one / "1.png").write_bytes(b"")
    (tmp_path / "way").symlink_to(tree / "b")
    for name, target in (("c", "way"), ("d", "disk"), ("e.png", "late.png")):
        (tree / name).symlink_to(tmp_path / target)
    settle(tree)
    settle(one)
    assert len(opened(tree)) == len(opened(tree)) == 3 and len(scans) == 1
    (tmp_path / "way").unlink()
    (tmp_path / "way").symlink_to(one)
    assert len(opened(tree)) == len(opened(tree)) == 4 and len(scans) == 2
    shutil.copytree(one, tmp_path / "disk")
    settle(tmp_path / "disk")
    assert len(opened(tree)) == len(opened(tree)) == 5 and len(scans) == 3
    (tmp_path / "late.png").write_bytes(b"")
    assert len(opened(tree)) == len(opened(tree)) == 6 and len(scans) == 4
    (tmp_path / "late.png").unlink()
    assert len(opened(tree)) == 5 and len(scans) == 5


def test_what_is_out_of_date_is_removed(tree: Path) -> None:
    """Also where nothing replaces it, or it would be believed when a folder gets its old time and names back."""
    opened(tree)
    add(tree)
    opened(tree)
    assert not list(cache_folder("folders").iterdir())


def test_a_folder_that_changed_just_now_is_not_believed(tree: Path, scans: list[str]) -> None:
    os.utime(tree / "a/more", (time.time(), time.time()))
    assert [len(opened(tree)) for _ in range(2)] == [3, 3] and scans == ["", ""]
    assert not cache_folder("folders").exists()


def test_a_folder_that_could_not_be_listed(tree: Path, scans: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def refused(path: Path) -> object:
        if str(path).endswith("/more"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    listed_names = os.listdir
    closed = lambda path: refused(path) and listed_names(path)  # noqa: E731
    monkeypatch.setattr(os, "listdir", closed)
    found = [opened(tree), opened(tree)]
    assert scans == [""] and found[0].notes == found[1].notes and found[0].notes[-1] == "No permission to list a/more."
    monkeypatch.setattr(os, "listdir", listed_names)
    monkeypatch.setattr(os, "scandir", listed)
    assert len(opened(tree)) == 3 and scans == ["", ""]


def test_another_place_is_another_folder(tree: Path, tmp_path: Path, scans: list[str]) -> None:
    opened(tree)
    (tmp_path / "link").symlink_to(tree)
    opened(tmp_path / "link")
    assert len(scans) == 1  # the same folder by another way
    tree.rename(tmp_path / "moved")
    found = opened(tmp_path / "moved")
    assert found.path(0) == str(tmp_path / "moved" / NAMES[0]) and len(scans) == 2


def test_names_that_are_no_utf_8(tmp_path: Path, scans: list[str]) -> None:
    for name in (b"caf\xe9/1\xff.png", b"caf\xe9/2.png", "ö/3.png".encode()):
        path = tmp_path / "d" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    settle(tmp_path / "d")
    first, second = opened(tmp_path / "d"), opened(tmp_path / "d")
    assert scans == [""] and first.classes == second.classes == [os.fsdecode(b"caf\xe9"), "ö"]
    assert first.encoded(0) == second.encoded(0) and first.fingerprint == second.fingerprint


def test_parts_have_entries_of_their_own(tmp_path: Path, scans: list[str]) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "val/b/3.png"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(b"")
    settle(tmp_path / "d")
    for _ in range(2):
        whole = open_source(str(tmp_path / "d"), channels=3, split="all")
        test = open_source(str(tmp_path / "d"), channels=3, split="test")
        assert whole.labels is not None and whole.labels.tolist() == [0, 1, 1]
        assert test.labels is not None and test.labels.tolist() == [1] and test.classes == ["a", "b"]
    assert scans == ["train", "val"]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "version", "no images"])
def test_a_damaged_entry_is_replaced(tree: Path, scans: list[str], damage: str, monkeypatch) -> None:
    opened(tree)
    content = entry().read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    damaged = {"empty": b"", "cut": content[:-8], "flipped": bytes(flipped), "other": b"#!/bin/sh\n" * 100}
    if damage == "version":
        monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    else:
        entry().write_bytes(damaged.get(damage, content[:40]))
    assert [len(opened(tree)) for _ in range(2)] == [3, 3] and scans == ["", ""]
    assert len(entry().read_bytes()) == len(content)


def test_without_a_place_for_a_cache(tree: Path, scans: list[str], tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len({opened(tree).fingerprint for _ in range(2)}) == 1 and scans == ["", ""]


def test_a_full_disk(tree: Path, scans: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_arrays", full)
    assert len({opened(tree).fingerprint for _ in range(2)}) == 1 and scans == ["", ""]


def test_switched_off(tree: Path, scans: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBOT_CACHE_GIB", "0")
    assert [len(opened(tree)) for _ in range(2)] == [3, 3] and scans == ["", ""]
    assert not cache_folder("folders").exists()


def test_use_keeps_an_entry(tree: Path) -> None:
    opened(tree)
    os.utime(entry(), (LONG_AGO, LONG_AGO))
    opened(tree)
    assert time.time() - entry().stat().st_mtime < 3600


def pictures(root: Path) -> Path:
    for name in ("1.png", "2.png", "3.png"):
        write_image(root / name)
    return settle(root)


def stale(source: FileSource, index: int) -> bool:
    try:
        source.read(index)
    except UnreadableImage as error:
        assert error.reason == CHANGED
        return True
    return False


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, (LONG_AGO, LONG_AGO))


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize("change", [grow, rewrite])
def test_a_file_that_changed_after_the_fingerprint_is_unreadable(tmp_path: Path, change) -> None:
    source = opened(pictures(tmp_path / "d"))
    before = source.fingerprint
    change(tmp_path / "d/2.png")
    assert [stale(source, index) for index in range(3)] == [False, True, False]
    again = opened(tmp_path / "d")
    assert again.fingerprint != before and not stale(again, 1)


def test_a_file_that_changed_before_the_fingerprint_is_used_as_it_is(tmp_path: Path) -> None:
    before = opened(pictures(tmp_path / "d")).fingerprint
    source = opened(tmp_path / "d")
    rewrite(tmp_path / "d/2.png")
    assert not stale(source, 1)
    assert source.fingerprint != before and not stale(source, 1)


def test_rights_and_owners_do_not_count(tmp_path: Path) -> None:
    source = opened(pictures(tmp_path / "d"))
    before = source.fingerprint
    (tmp_path / "d/2.png").chmod(0o600)
    assert not stale(source, 1) and opened(tmp_path / "d").fingerprint == before


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images are many, and the first is some of them."""
    monkeypatch.setattr("ibot_cli.data.files.MANY", 2)
    monkeypatch.setattr("ibot_cli.data.files.SOME", 1)


@pytest.mark.usefixtures("many")
def test_the_known_fingerprint_asks_for_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = opened(pictures(tmp_path / "d")).fingerprint
    monkeypatch.setattr("ibot_cli.data.files.stat_files", lambda *_: pytest.fail("asked for the files"))
    assert known_fingerprint(opened(tmp_path / "d")) == exact


def test_the_known_fingerprint_of_what_nobody_knows_is_the_exact_one(tmp_path: Path) -> None:
    source = opened(pictures(tmp_path / "d"))
    assert known_fingerprint(source) == opened(tmp_path / "d").fingerprint
    part = Subset(source, np.array([1]))
    assert known_fingerprint(part) == part.fingerprint


@pytest.mark.usefixtures("many")
def test_the_known_fingerprint_is_not_believed_where_many_files_changed(tmp_path: Path) -> None:
    before = opened(pictures(tmp_path / "d")).fingerprint
    for name in ("1.png", "2.png", "3.png"):
        rewrite(tmp_path / "d" / name)
    source = opened(tmp_path / "d")
    assert known_fingerprint(source) != before and not stale(source, 1)


def test_of_few_files_all_are_asked(tmp_path: Path) -> None:
    before = opened(pictures(tmp_path / "d")).fingerprint
    rewrite(tmp_path / "d/2.png")
    source = opened(tmp_path / "d")
    assert known_fingerprint(source) != before and not stale(source, 1)


@pytest.mark.usefixtures("many")
def test_a_file_that_the_known_fingerprint_does_not_know(tmp_path: Path) -> None:
    before = opened(pictures(tmp_path / "d")).fingerprint
    rewrite(tmp_path / "d/2.png")
    source = opened(tmp_path / "d")
    assert known_fingerprint(source) == before  # nobody asked for the file
    assert stale(source, 1) and not stale(source, 0)
    again = opened(tmp_path / "d")
    assert known_fingerprint(again) != before and not stale(again, 1)


def test_states_of_files_that_had_just_been_written_are_not_kept(tmp_path: Path) -> None:
    pictures(tmp_path / "d")
    rewrite(tmp_path / "d/2.png")
    first = opened(tmp_path / "d").fingerprint
    assert open_index(tmp_path / "d").states is None and opened(tmp_path / "d").fingerprint == first


def read_in_another_process(content: bytes) -> tuple[str, list[bool]]:
    source = pickle.loads(content)
    return source.path(2), [stale(source, index) for index in range(3)]


def test_other_processes_check_the_files_too(tmp_path: Path) -> None:
    source = opened(pictures(tmp_path / "d"))
    assert source.fingerprint
    rewrite(tmp_path / "d/2.png")
    assert read_in_another_process(pickle.dumps(source)) == (str(tmp_path / "d/3.png"), [False, True, False])


@pytest.mark.slow
def test_processes_that_are_not_forked_share_the_names(tmp_path: Path) -> None:
    source = opened(pictures(tmp_path / "d"))
    assert source.fingerprint
    rewrite(tmp_path / "d/2.png")
    with get_context("spawn").Pool(1) as pool:
        found = pool.apply(read_in_another_process, (pickle.dumps(source),))
    assert found == (str(tmp_path / "d/3.png"), [False, True, False])


def test_what_is_sent_to_other_processes_does_not_grow_with_the_names(tmp_path: Path) -> None:
    tree = tmp_path / "d"
    tree.mkdir()
    for number in range(300):
        (tree / f"a-name-of-some-length-{number}.png").touch()
    source = opened(settle(tree))
    assert source.fingerprint and len(pickle.dumps(source)) < 2000

"""The cache of the feature pass: hits, additions, resuming, staleness, damage, limits."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli.cache_folder import cache_folder
from ibot_cli.data.sources import open_source
from ibot_cli.errors import UsageError
from ibot_cli.evaluate.feature_cache import entry as feature_entry
from ibot_cli.evaluate.feature_cache import key as feature_key
from ibot_cli.evaluate.features import feature_pass
from ibot_cli.lock import FolderLock
from tests.evaluate.images import write_folder
from tests.evaluate.passes import ALL_PARTS, BATCH, EVERYTHING, NUM, Pictures, counted, loaded, run, same
from tests.train.runs import in_child

BLOCK = 2 * BATCH  # 37 images in batches of 2 make blocks of 2 batches


def entries() -> list[Path]:
    root = cache_folder("features")
    return sorted(root.iterdir()) if root.exists() else []


def only() -> Path:
    (entry,) = entries()
    return entry


def uncached(**options: Any) -> Any:
    return run(loaded(), cache=False, **options)


def test_the_second_pass_computes_and_reads_nothing() -> None:
    first = run(loaded())
    again, source = loaded(), Pictures()
    second = run(again, source)
    assert counted(again) == 0 == source.reads
    assert same(first, second) and same(first, uncached()) and second.notes == ()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_files_hold_the_features(precision: str) -> None:
    found = run(loaded(), precision=precision)
    size = NUM * 16 * (4 if precision == "fp32" else 2)
    files = {file.stem: file.stat().st_size for file in only().glob("*@*")}
    assert files == dict.fromkeys(ALL_PARTS, size)
    again = loaded()
    assert same(found, run(again, precision=precision)) and counted(again) == 0


def test_other_requests_have_other_entries() -> None:
    run(loaded(), poolings=("cls",))
    for change in (
        lambda: run(loaded(1), poolings=("cls",)),
        lambda: run(loaded(), poolings=("cls",), precision="bf16"),
        lambda: run(loaded(), poolings=("cls",), index=torch.arange(NUM - 1).numpy()),
        lambda: run(loaded(std=(0.25, 0.25, 0.25 + 1e-9)), poolings=("cls",)),
        lambda: run(loaded(crop_ratio=0.5), poolings=("cls",)),
        lambda: run(loaded(architecture="small, patched"), poolings=("cls",)),
    ):
        before = len(entries())
        assert change().notes == () and len(entries()) == before + 1


def test_parts_that_come_later_are_added() -> None:
    model = loaded()
    run(model, poolings=("cls",))
    assert counted(model) == NUM
    wide = run(model, poolings=("cls2+mean",))
    assert counted(model) == NUM and same(wide, uncached(poolings=("cls2+mean",)), ("cls2+mean",))
    assert counted(model) == 0
    for poolings in (("cls",), ("mean",), ("cls2", "mean+cls")):
        run(model, poolings=poolings)
    assert counted(model) == 0


def test_missing_parts_only_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    run(loaded(), poolings=("cls",))
    asked: list[tuple[str, ...]] = []

    def noting(backbone: Any, images: Any, parts: Any) -> dict[str, torch.Tensor]:
        asked.append(tuple(parts))
        return {part: torch.zeros(len(images), 16) for part in parts}

    monkeypatch.setattr("ibot_cli.evaluate.features.compute_parts", noting)
    run(loaded(), poolings=("cls2+rawmean",))
    assert set(asked) == {("cls@2", "rawmean@1")}


def test_unreadable_images_are_tried_again_without_computing_the_others() -> None:
    bad = (0, 4, 5, 6, 7, 30)
    first, again, source = run(loaded(), Pictures(bad=bad)), loaded(), Pictures(bad=bad)
    assert same(first, run(again, source)) and source.reads == len(bad) and counted(again) == 0
    assert len(first.bad) == len(bad)


def test_images_that_can_be_read_again_are_used() -> None:
    """Rights, a disk that failed for a moment, a package that was missing: the fingerprint is the same."""
    run(loaded(), Pictures(bad=(0, 4, 5, 6, 7, 30)))
    again, less = loaded(), Pictures(bad=(30,))
    found = run(again, less)
    assert same(found, run(loaded(), Pictures(bad=(30,)), cache=False)) and counted(again) == 2 * BLOCK
    assert found.notes == ("5 images of pictures that could not be read before can be read now.",)
    assert same(found, run(again, Pictures(bad=(30,)))) and counted(again) == 0


class Stop(Exception):
    pass


def stopping(images: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= images:
            raise Stop

    return progress


@pytest.mark.parametrize("images", [1, 2 * BLOCK, 2 * BLOCK + 1, NUM - 1])
def test_an_interrupted_pass_continues_where_it_stopped(images: int) -> None:
    with pytest.raises(Stop):
        run(loaded(), progress=stopping(images))
    again, calls = loaded(), list[int]()
    found = run(again, progress=lambda done, _: calls.append(done))
    stored = images // BLOCK * BLOCK if images > 1 else 0
    assert counted(again) == NUM - stored and calls[0] == min(stored + BATCH, NUM)
    assert same(found, uncached()) and found.notes == ()


def kill_after(images: int) -> None:
    def progress(done: int, total: int) -> None:
        if done >= images:
            os.kill(os.getpid(), signal.SIGKILL)

    run(loaded(), progress=progress)


def test_a_killed_pass_continues_where_it_stopped() -> None:
    assert in_child(lambda: kill_after(3 * BLOCK + 1)) == -signal.SIGKILL
    again = loaded()
    assert same(run(again), uncached())
    assert counted(again) == NUM - 3 * BLOCK


def test_half_a_line_of_a_killed_writer_harms_nothing() -> None:
    with pytest.raises(Stop):
        run(loaded(), progress=stopping(2 * BLOCK))
    journal = only() / "blocks-0.jsonl"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join(lines)[:-20])
    again = loaded()
    assert same(run(again), uncached()) and counted(again) == NUM - BLOCK
    run(again)
    assert counted(again) == 0


def test_an_interrupted_pass_continues_with_other_batches() -> None:
    with pytest.raises(Stop):
        run(loaded(), progress=stopping(2 * BLOCK))
    again = loaded()
    found = run(again, batch_size=64)
    assert counted(again) == NUM - 2 * BLOCK
    for pooling in EVERYTHING:
        torch.testing.assert_close(found.pooled(pooling), uncached().pooled(pooling), atol=1e-5, rtol=1e-5)


def changed_note() -> str:
    return "The images of pictures changed after their features had been cached; they were computed again."


def test_changed_images_are_computed_again() -> None:
    run(loaded())
    again = loaded()
    assert run(again, Pictures(fingerprint="changed")).notes == (changed_note(),)
    assert counted(again) == NUM and len(entries()) == 1  # the old ones can never be asked for again
    assert run(again, Pictures(fingerprint="changed")).notes == () and counted(again) == 0


def test_changed_files_of_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"a": 3, "b": 3})
    data, model = str(folder), loaded()
    feature_pass(model, open_source(data, channels=3))
    moved = shutil.move(folder, tmp_path / "moved")  # names, sizes and times stay
    assert counted(model) == 6
    assert feature_pass(model, open_source(str(moved), channels=3)).notes == () and counted(model) == 0
    os.utime(Path(moved) / "a" / "1.png", ns=(1, 1))
    shutil.move(moved, folder)
    found = feature_pass(model, open_source(data, channels=3))
    assert counted(model) == 6
    assert found.notes == (
        f"The images of {data} changed after their features had been cached; they were computed again.",
    )


@pytest.mark.parametrize(
    ("name", "attribute", "sentence"),
    [
        ("torch", "torch.__version__", f"torch 1.2.3, not torch {torch.__version__}"),
        ("format", "FORMAT", f"format 1.2.3, not format {feature_key.FORMAT}"),
    ],
)
def test_other_versions(name: str, attribute: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"ibot_cli.evaluate.feature_cache.key.{attribute}", "1.2.3")
        run(loaded())
    again = loaded()
    assert run(again).notes == (
        f"The cached features of pictures were made with {sentence}; they were computed again.",
    )
    assert counted(again) == NUM and len(entries()) == 2  # the other version may come back
    assert run(again).notes == () and counted(again) == 0


def test_another_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.17.0")
    run(loaded())
    monkeypatch.setattr("importlib.metadata.version", missing)
    assert run(loaded()).notes == (
        "The cached features of pictures were made with torchcodec 0.17.0, not torchcodec (not installed); they were "
        "computed again.",
    )


def test_several_versions_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    key = feature_key.feature_key(
        loaded(), Pictures(), repr, torch.arange(3).numpy(), precision="fp32", device=torch.device("cpu")
    )
    made = {**key.made, "ibot": "0.0", "timm": "0.1"}
    assert key.outdated({"where": key.where, "asked": dict(key.asked), "made": made}) == (
        f"The cached features of pictures were made with ibot 0.0 and timm 0.1, not ibot {key.made['ibot']} and timm "
        f"{key.made['timm']}; they were computed again."
    )
    assert key.outdated({"where": "elsewhere", "asked": dict(key.asked), "made": made}) is None
    assert key.outdated({"where": key.where, "asked": dict(key.asked), "made": 3}) is None


def edit_header(entry: Path) -> None:
    header = json.loads((entry / "header.json").read_text())
    header["block_rows"] *= 2
    (entry / "header.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    "damage",
    [
        edit_header,
        lambda entry: (entry / "header.json").write_text("{half"),
        lambda entry: (entry / "header.json").write_text("[1]"),
        lambda entry: (entry / "header.json").write_bytes(b"\xff\xfe"),
    ],
    ids=["edited", "half", "list", "bytes"],
)
def test_a_damaged_header(damage: Callable[[Path], object]) -> None:
    run(loaded())
    damage(only())
    again = loaded()
    found = run(again)
    assert found.notes == ("The cache of the features of pictures had a damaged header; they were computed again.",)
    assert same(found, uncached()) and counted(again) == NUM
    assert run(again).notes == () and counted(again) == 0


def test_the_header_of_another_entry_is_not_believed() -> None:
    run(loaded(1))
    other = only()
    run(loaded())
    (mine,) = set(entries()) - {other}
    for file in mine.iterdir():
        shutil.copy(other / file.name, file)
    found = run(loaded())
    assert found.notes == ("The cache of the features of pictures had a damaged header; they were computed again.",)
    assert same(found, uncached())


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_changed_bit_costs_its_block_only() -> None:
    run(loaded())
    flip(only() / "cls@1.f32", 5 * BLOCK * 64 + 3)
    again = loaded()
    found = run(again)
    assert found.notes == (
        "Cached features of pictures were damaged (cls@1: 1 of 10 blocks); these were computed again.",
    )
    assert counted(again) == BLOCK and same(found, uncached())
    assert run(again).notes == () and counted(again) == 0


@pytest.mark.parametrize("damage", ["truncated", "longer", "gone"])
def test_a_file_of_another_size(damage: str) -> None:
    run(loaded())
    file = only() / "mean@2.f32"
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[:-1] if damage == "truncated" else content + b"1")
    again = loaded()
    found = run(again)
    assert found.notes == (
        "Cached features of pictures were damaged (mean@2: 10 of 10 blocks); these were computed again.",
    )
    assert counted(again) == NUM and same(found, uncached())
    assert run(again).notes == () and counted(again) == 0


def test_an_edited_journal_is_not_believed() -> None:
    run(loaded(), Pictures(bad=(3,)))
    journal = only() / "blocks-0.jsonl"
    journal.write_text(journal.read_text().replace("image 3", "image 4"))
    again = loaded()
    assert run(again, Pictures(bad=(3,))).bad == {"image 3": "damaged"}
    assert counted(again) == BLOCK - 1


def test_no_journal_means_nothing_is_there() -> None:
    run(loaded())
    (only() / "blocks-0.jsonl").unlink()
    again = loaded()
    assert same(run(again), uncached()) and counted(again) == NUM


def test_while_another_process_writes_there_is_no_cache() -> None:
    with pytest.raises(Stop):
        run(loaded(), progress=stopping(2 * BLOCK))
    again = loaded()
    with FolderLock(only() / "lock"):
        found = run(again)
    assert found.notes == (
        "Another process is caching the features of pictures, so they were computed without the cache.",
    )
    assert counted(again) == NUM - 2 * BLOCK and same(found, uncached())  # what is there serves all the same
    run(again)
    assert counted(again) == NUM - 2 * BLOCK


def test_a_complete_entry_needs_no_lock() -> None:
    run(loaded())
    again = loaded()
    with FolderLock(only() / "lock"):
        assert run(again).notes == () and counted(again) == 0


def test_two_processes_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    children = []
    for number in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                found = run(loaded())
                torch.save([found.pooled(pooling) for pooling in EVERYTHING], tmp_path / f"{number}.pt")
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    for number in range(2):
        for pooling, features in zip(EVERYTHING, torch.load(tmp_path / f"{number}.pt"), strict=True):
            assert torch.equal(features, uncached().pooled(pooling))
    again = loaded()
    assert run(again).notes == () and counted(again) == 0


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = run(loaded())
    root = tmp_path / "file" / "ibot" / "features"
    assert found.notes == (f"The features of pictures were not cached in {root}: Not a directory.",)
    assert same(found, uncached())


def test_a_disk_that_becomes_full(monkeypatch: pytest.MonkeyPatch) -> None:
    original, blocks = feature_entry.DiskStore._put, list[int]()

    def full(self: Any, part: str, block: int, *rest: Any) -> None:
        blocks.append(block)
        if block >= 4:
            raise OSError(28, "No space left on device")
        original(self, part, block, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(feature_entry.DiskStore, "_put", full)
        model = loaded()
        found = run(model)
    assert counted(model) == NUM and same(found, uncached()) and blocks.count(4) == 1
    assert found.notes == (
        "The features could not be written to the cache and were not kept: No space left on device.",
    )
    assert entries() == []  # it must not be the cache that keeps the disk full


def test_a_disk_that_refuses_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    original = feature_entry.DiskStore.write

    def refuse(self: Any, block: Any) -> None:
        if block.number >= 4:
            raise OSError(5, "Input/output error")
        original(self, block)

    model = loaded()
    with monkeypatch.context() as patch:
        patch.setattr(feature_entry.DiskStore, "write", refuse)
        found = run(model)
    assert same(found, uncached()) and counted(model) == NUM
    assert found.notes == ("The features could not be written to the cache and were not kept: Input/output error.",)
    run(model)
    assert counted(model) == NUM - 4 * BLOCK


def test_no_cache_leaves_no_trace() -> None:
    uncached()
    assert entries() == []


def test_a_limit_of_zero_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBOT_CACHE_GIB", "0")
    assert run(loaded()).notes == () and entries() == []


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBOT_CACHE_GIB", text)
    with pytest.raises(UsageError, match=f"IBOT_CACHE_GIB={text} is not a number of GiB") as caught:
        run(loaded())
    assert caught.value.hint == "The default is 20; 0 is no cache."


def stored(entry: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in entry.iterdir())


def test_the_entry_unused_for_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    for seed in range(3):
        run(loaded(seed))
        made += [entry for entry in entries() if entry not in made]
        os.utime(made[seed] / "header.json", ns=(seed + 1, seed + 1))
    size = max(map(stored, made))
    monkeypatch.setenv("IBOT_CACHE_GIB", str((3.5 * size) / 2**30))
    assert run(loaded(3)).notes == ()
    assert made[0] not in entries() and len(entries()) == 3
    models = [loaded(seed) for seed in (1, 2, 3, 0)]
    for model in models:
        run(model)
    assert [counted(model) for model in models] == [0, 0, 0, NUM]


def test_features_that_exceed_the_limit_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    run(loaded(1))
    monkeypatch.setenv("IBOT_CACHE_GIB", "0.000001")
    found = run(loaded())
    assert len(found.notes) == 1 and found.notes[0].startswith("The features of pictures take ")
    assert found.notes[0].endswith("(1e-06 GiB, IBOT_CACHE_GIB), so they were not kept.")
    assert entries() == [] and same(found, uncached())


def test_an_entry_in_use_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    run(loaded(1))
    (busy,) = entries()
    monkeypatch.setenv("IBOT_CACHE_GIB", "0.000001")
    with FolderLock(busy / "lock"):
        run(loaded())
    assert entries() == [busy]


def test_what_a_killed_removal_left_goes_too() -> None:
    run(loaded())
    left = cache_folder("features") / ".removed-1-x"
    left.mkdir()
    (left / "cls@1.f32").write_text("rest")
    run(loaded(1))
    assert not left.exists()

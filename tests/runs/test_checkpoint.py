import os
import signal
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli import durable
from ibot_cli.errors import RunError
from ibot_cli.runs import checkpoint
from ibot_cli.runs.checkpoint import CheckpointStore, UnreadableCheckpointError


def state(value: float = 0.0) -> dict[str, object]:
    weight = torch.full((64, 4), value)
    return {"student": OrderedDict(a=weight, b=weight), "step_size": 0.1, "names": ["x", None], "betas": (0.9, 0.99)}


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir())


def test_round_trip_with_a_plain_torch_load(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.latest() is None
    path = store.save(state(2.0), step=1234, epoch=3)
    assert path.name == "step-00001234.pt"
    content = torch.load(path, weights_only=True)
    assert content["format_version"] == checkpoint.FORMAT_VERSION
    found = store.latest()
    assert found is not None
    assert (found.step, found.epoch, found.path, found.warning) == (1234, 3, path, None)
    assert type(found.state["student"]) is dict
    assert torch.equal(found.state["student"]["a"], torch.full((64, 4), 2.0))
    assert found.state["student"]["a"].data_ptr() == found.state["student"]["b"].data_ptr()  # aliases stay aliases
    assert found.state["betas"] == (0.9, 0.99) and found.state["names"] == ["x", None]


def test_only_plain_values_are_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a \w*Path"):
        CheckpointStore(tmp_path).save({"a": [1, Path()]} | state(), step=1, epoch=0)
    assert list(tmp_path.iterdir()) == []


def test_subclasses_of_plain_types_become_plain(tmp_path: Path) -> None:
    content = {"torch": torch.__version__, "lr": np.float64(0.1), "shape": torch.Size([2, 3]), 3: True, "n": None}
    path = CheckpointStore(tmp_path).save(content, step=1, epoch=0)
    found = torch.load(path, weights_only=True)["state"]
    assert found == {"torch": str(torch.__version__), "lr": 0.1, "shape": (2, 3), 3: True, "n": None}
    assert [type(found[key]) for key in ("torch", "lr", "shape", 3)] == [str, float, tuple, bool]
    with pytest.raises(TypeError, match=r"state has the key \(1, 2\)"):
        CheckpointStore(tmp_path).save({(1, 2): 3}, step=1, epoch=0)


def test_an_unreadable_newer_file_does_not_push_good_ones_out(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2)
    (tmp_path / "step-00000099.pt").write_bytes(b"half")
    for step in (1, 2, 3):
        store.save(state(), step=step, epoch=0)
    assert names(store) == ["step-00000002.pt", "step-00000003.pt", "step-00000099.pt"]


def test_retention_keeps_the_newest_and_whole_epochs(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_epochs=2)
    for step in range(1, 9):  # two steps an epoch
        store.save(state(), step=step, epoch=step // 2, epoch_end=step % 2 == 0)
    assert names(store) == ["step-00000004.keep.pt", "step-00000007.pt", "step-00000008.keep.pt"]
    store.save(state(), step=9, epoch=4, keep=True)
    assert names(store) == ["step-00000004.keep.pt", "step-00000008.keep.pt", "step-00000009.keep.pt"]


def test_the_same_step_again_replaces_the_file(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3)
    store.save(state(1.0), step=5, epoch=0)
    store.save(state(2.0), step=5, epoch=1, keep=True)
    assert names(store) == ["step-00000005.keep.pt"]


def test_nothing_is_removed_before_the_new_one_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(state(), step=1, epoch=0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "rename", full)
    with pytest.raises(RunError, match=r"step-00000002\.pt could not be written: .*No space left") as caught:
        store.save(state(), step=2, epoch=0)
    assert caught.value.hint is not None and "disk space" in caught.value.hint
    assert names(store) == ["step-00000001.pt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("after_rename", [False, True])
def test_kill_around_the_rename_leaves_a_good_checkpoint(tmp_path: Path, after_rename: bool) -> None:
    CheckpointStore(tmp_path, keep_last=1).save(state(1.0), step=1, epoch=0)
    child = os.fork()
    if child == 0:

        def die(temporary: Path, final: Path) -> None:
            if after_rename:
                temporary.replace(final)
            os.kill(os.getpid(), signal.SIGKILL)

        durable.rename = die
        CheckpointStore(tmp_path, keep_last=1).save(state(2.0), step=2, epoch=0)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert any(path.suffix == ".tmp" for path in tmp_path.iterdir()) is not after_rename
    store = CheckpointStore(tmp_path)
    found = store.latest()
    assert found is not None and found.step == (2 if after_rename else 1) and found.warning is None
    assert not any(path.suffix == ".tmp" for path in tmp_path.iterdir())


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x80\x02 no checkpoint" * 100)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    position = content.index(torch.full((16,), 3.0).numpy().tobytes())
    content[position + 8] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    torch.save({"model": {}}, path)


def foreign_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")


@pytest.mark.parametrize("damage", [truncate, empty, garbage, flip, foreign, foreign_archive])
def test_unreadable_newest_falls_back_and_says_so(tmp_path: Path, damage) -> None:
    store = CheckpointStore(tmp_path)
    store.save(state(2.0), step=10, epoch=0)
    damage(store.save(state(3.0), step=20, epoch=1))
    assert checkpoint.latest(tmp_path).step == 10  # reading alone changes nothing
    found = CheckpointStore(tmp_path, keep_last=1).latest()
    assert found is not None and found.step == 10
    assert found.warning is not None
    assert "step-00000020.pt" in found.warning and "Continuing from step-00000010.pt (step 10)" in found.warning
    assert names(store) == ["step-00000010.pt", "step-00000020.pt.unreadable"]


def test_all_unreadable(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    truncate(store.save(state(), step=1, epoch=0))
    with pytest.raises(RunError, match=r"No checkpoint in .* can be read.*step-00000001\.pt"):
        store.latest()


def test_newer_format_is_refused_without_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    store.save(state(), step=1, epoch=0)
    with monkeypatch.context() as future:
        future.setattr(checkpoint, "FORMAT_VERSION", 99)
        store.save(state(), step=2, epoch=0)
    with pytest.raises(RunError, match="checkpoint format 99; this version of ibot reads up to 1") as caught:
        store.latest()
    assert not isinstance(caught.value, UnreadableCheckpointError)
    assert caught.value.hint == "Upgrade ibot."


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        checkpoint.load(tmp_path / "step-00000001.pt")

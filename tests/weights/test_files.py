import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli.errors import WeightsError
from ibot_cli.weights.files import read_weights_file


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_namespace_and_numpy_scalars_are_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    content = {"args": argparse.Namespace(arch="vit_tiny"), "lr": np.float64(0.5), "n": np.int64(3), "w": torch.ones(2)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_weights_file(path)
    assert (found["args"].arch, float(found["lr"]), int(found["n"])) == ("vit_tiny", 0.5, 3)


def test_numpy_scalar_under_its_old_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"lr": np.float64(0.5)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert float(read_weights_file(path)["lr"]) == 0.5


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Malicious()}, "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"a\.pth holds Python code \(.*mkdir\), which is not executed") as caught:
        read_weights_file(Path("a.pth"))
    assert caught.value.hint is not None and "state dict" in caught.value.hint
    assert not Path("executed").exists()


def test_bare_pickle_of_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pth").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(WeightsError):
        read_weights_file(Path("a.pth"))
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n <!DOCTYPE html><html>404</html>", "is a web page, not weights"),
        (b"<HTML><body>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"hello world, this is text", "truncated or not a PyTorch file"),
        (b"PK\x03\x04 half an archive", "truncated or not a PyTorch file"),
    ],
)
def test_what_is_no_weights_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights_file(tmp_path / "a.pth")
    assert caught.value.hint


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_truncated_anywhere(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"w": torch.ones(5000)}}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    cuts = {1, 3, 20, 100, 700, len(whole) - 700, len(whole) - 30, len(whole) - 1}
    for cut in sorted(cuts | set(range(1500, len(whole), 2000))):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=r"truncated or not a PyTorch file|did not write") as caught:
            read_weights_file(path)
        assert ("did not write" in caught.value.message) == (not zipped and cut < 14), cut


def test_a_module_saved_whole_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"holds Python code \(torch\.nn\.modules\.linear\.Linear\)"):
        read_weights_file(tmp_path / "a.pth")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_of_any_protocol_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pth").write_bytes(pickle.dumps({"state_dict": Malicious()}, protocol=protocol))
    with pytest.raises(WeightsError, match=r"holds Python code|did not write|not a PyTorch file"):
        read_weights_file(Path("a.pth"))
    assert not Path("executed").exists()
    pickle.loads(Path("a.pth").read_bytes())  # the proof that it would have run
    assert Path("executed").exists()


def test_what_looks_like_a_name_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="facebook/dino-vits16 does not exist") as caught:
        read_weights_file(Path("facebook/dino-vits16"))
    assert caught.value.hint is not None and "timm:hf-hub:facebook/dino-vits16" in caught.value.hint


def test_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.full((100,), 3.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.full(10, 3.0, np.float32).tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged: wrong checksum"):
        read_weights_file(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist") as caught:
        read_weights_file(tmp_path / "nothing.pth")
    assert caught.value.hint is not None and "timm:NAME" in caught.value.hint


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pth").touch()

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")  # chmod does not stop root

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=r"a\.pth cannot be opened: Permission denied"):
        read_weights_file(tmp_path / "a.pth")


def test_a_file_of_zeros(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(bytes(5000))
    with pytest.raises(WeightsError, match="truncated or not a PyTorch file"):
        read_weights_file(tmp_path / "a.pth")


def test_what_is_there_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "link.pth").symlink_to("gone.pth")
    with pytest.raises(WeightsError, match=r"link\.pth is a link to gone\.pth, where no file is"):
        read_weights_file(tmp_path / "link.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(WeightsError, match=r"pipe\.pth is neither a file nor a folder"):
        read_weights_file(tmp_path / "pipe.pth")

"""Folders that are no WEIGHTS: the error names what in them or beside them is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ibot_cli.errors import WeightsError
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.weights.load import load_weights

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "ibot_tiny_checkpoint.pth"


def refusal(folder: Path) -> tuple[str, str]:
    with pytest.raises(WeightsError) as caught:
        load_weights(str(folder))
    assert caught.value.hint is not None
    return caught.value.message, caught.value.hint


def test_empty(tmp_path: Path) -> None:
    message, hint = refusal(tmp_path)
    assert message == f"{tmp_path} is an empty folder."
    assert hint.startswith("Name a run of `ibot pretrain` or `ibot finetune`")


def test_no_run(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    message, hint = refusal(tmp_path)
    assert message == f"{tmp_path} is a directory but not a run: it has no config.yaml."
    assert "Hugging Face" in hint


def test_one_weights_file_is_meant(tmp_path: Path) -> None:
    shutil.copy(GOLDEN, tmp_path / "teacher.pth")
    (tmp_path / "README.md").touch()
    (tmp_path / ".teacher.pth.tmp").touch()
    found, file = load_weights(str(tmp_path), heads=3), load_weights(str(GOLDEN), heads=3)
    assert found.weights_hash == file.weights_hash
    assert found.description == f"teacher of {tmp_path / 'teacher.pth'}"


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_program_is_not_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    message, hint = refusal(tmp_path)
    assert message == f"{tmp_path} holds {name}, which is for running, not for loading into a network."
    assert hint == "Use the weights it was made from."


def test_several_weights_files(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.safetensors").touch()
    _, hint = refusal(tmp_path)
    assert hint.startswith(f"It holds 8 weights files; name one: {tmp_path / '0.safetensors'}, ")
    assert hint.endswith("5.safetensors and 2 more.")


def test_a_folder_of_runs(tmp_path: Path) -> None:
    for name in ("b", "a"):
        RunDirectory.create(tmp_path / name).write_config("{}\n")
    message, hint = refusal(tmp_path)
    assert message == f"{tmp_path} is a directory of runs, not a run."
    assert hint == f"Name one: {tmp_path / 'a'}, {tmp_path / 'b'}."


def test_checkpoints_of_a_run_that_has_none(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path)
    directory.write_config("{}\n")
    (directory.checkpoints / ".tmp").touch()
    assert refusal(directory.checkpoints)[0] == f"The run {tmp_path} has no checkpoint yet."

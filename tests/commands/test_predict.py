"""`ibot predict` as people type it."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path

import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from tests.commands.conftest import Command, Ibot
from tests.evaluate.images import write_folder
from tests.weights.finetuned_files import write_run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    return write_folder(tmp_path / "images", {"a": 3, "b": 2})


@pytest.fixture
def ibot(ibot: Ibot) -> Command:
    return partial(ibot, "predict")


def test_csv_on_stdout(ibot: Command, folder: Path) -> None:
    code, out, err = ibot("run", "images", "--device", "cpu")
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 5 and {row["prediction"] for row in rows} <= {"dark", "light", "odd"}
    assert all(float(row["confidence"]) == float(row[f"probability_{row['prediction']}"]) for row in rows)


def test_files_say_the_same_as_stdout(ibot: Command, folder: Path, tmp_path: Path) -> None:
    _, printed, _ = ibot("run", "images")
    code, out, err = ibot("run", "images", "--out", "found.csv")
    assert (code, out) == (0, "") and "5 images classified: found.csv" in err
    assert (tmp_path / "found.csv").read_text() == printed
    code, out, _ = ibot("run", "images", "--json", "--out", "found.json")
    assert code == 0 and (tmp_path / "found.json").read_text() == out
    found = json.loads(out)
    assert found["classes"] == ["dark", "light", "odd"] and len(found["images"]) == 5 and found["unreadable"] == {}


def test_unreadable_images_are_named_and_the_exit_code_is_1(ibot: Command, folder: Path, tmp_path: Path) -> None:
    (folder / "a/1.png").write_bytes(b"no image")
    code, out, err = ibot("run", "images", "--out", "found.csv")
    assert (code, out) == (1, "")
    assert f"warning: {folder.name}/a/1.png" in err
    assert "error: 1 of 5 images could not be read; they are named above." in err
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 5
    for name in ("a/0.png", "a/2.png", "b/0.png", "b/1.png"):
        (folder / name).write_bytes(b"")
    (tmp_path / "found.csv").unlink()
    code, out, err = ibot("run", "images", "--out", "found.csv")
    assert code == 1 and "can be read" in err and not (tmp_path / "found.csv").exists()


def test_weights_without_a_classifier(ibot: Command, folder: Path, tmp_path: Path) -> None:
    backbone = build_backbone(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=192, depth=1, heads=3)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    code, _, err = ibot("weights.pth", "images")
    assert code == 1 and "error: weights.pth has no classifier." in err


def test_a_student_alone_has_no_classifier_either(ibot: Command, folder: Path, tmp_path: Path) -> None:
    torch.save({"student": {"a": torch.ones(1)}}, tmp_path / "weights.pth")
    code, _, err = ibot("weights.pth", "images")
    assert code == 1 and "error: weights.pth has no classifier." in err
    assert "Fine-tune" in err and "--which" not in err
    assert "ibot finetune WEIGHTS DATA --out RUN" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--out", "found.txt"), "error: --out found.txt says neither .csv nor .json."),
        (("--out", "nowhere/found.csv"), "error: There is no folder nowhere for --out."),
        (("--top", "0"), "Invalid value for '--top'"),
        (("--device", "tpu"), "'tpu' is not a device"),
    ],
)
def test_wrong_usage(ibot: Command, folder: Path, args: tuple[str, ...], message: str) -> None:
    code, out, err = ibot("run", "images", *args)
    assert (code, out) == (2, "") and message in err

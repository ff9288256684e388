"""`ibot visualize-patterns` as people type it."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibot_cli import cli
from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.visualize.patterns.wording import probable
from tests.commands.conftest import Command, Done, Ibot
from tests.evaluate.images import write_folder
from tests.train import runs

NOTHING_WRITTEN = {"images", "weights.pth", "bare.pth"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images, and weights with and without a head."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=1, heads=2)
        head = Head(16, 12, hidden_size=8, bottleneck_size=4)
    torch.save(backbone.state_dict(), "bare.pth")
    parts = {"backbone": backbone, "head": head}
    state = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    torch.save({"teacher": state}, "weights.pth")
    write_folder(tmp_path / "images", {"dark": 6, "grey": 5, "light": 4})
    return tmp_path


@pytest.fixture
def ibot(ibot: Ibot) -> Command:
    def run(*args: str, weights: str = "weights.pth", data: str = "images") -> Done:
        heads = () if weights == "run" else ("--heads", "2")
        fixed = ("--device", "cpu", "--min-brightness", "-1")
        return ibot("visualize-patterns", weights, data, *heads, *fixed, *args)

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_people_see(ibot: Command, place: Path) -> None:
    code, out, err = ibot("--num-patterns", "3", "--top-k", "4", "--baseline", "random")
    assert (code, out) == (0, "")
    read = json.loads((place / "patterns" / "patterns.json").read_text())
    rows = [line.split() for line in err.splitlines() if line[:4].strip() in ("1", "2", "3")]
    for rank, (row, pattern) in enumerate(zip(rows, read["patterns"], strict=True), start=1):
        numbers = [f"{pattern['share']:.1%}", probable(pattern["probability"])]
        numbers += [f"{pattern['purity']:.1%}", read["classes"][pattern["label"]]]
        numbers += [f"{pattern['members_purity']:.1%}", read["classes"][pattern["members_label"]]]
        assert row == [str(rank), str(pattern["prototype"]), f"{pattern['count']:,}", *numbers]
    purity = read["purity"]
    trained = next(line.split() for line in err.splitlines() if line.startswith("trained weights"))
    assert trained[2:] == [f"{purity['trained'][name]:.1%}" for name in ("members", "patches")] + [str(read["used"])]
    random = next(line for line in err.splitlines() if line.startswith("random weights, 3 seeds"))
    mean = sum(each["members"] for each in purity["random"]) / 3
    low, high = (choose(each["members"] for each in purity["random"]) for choose in (min, max))
    assert f"{mean:.1%} ({low:.1%} to {high:.1%})" in random
    assert any(line.startswith(f"k-means on raw pixels, K = {purity['pixels_k']}") for line in err.splitlines())
    assert f"Trained / random weights: {purity['trained']['members'] / mean:.2f} of the members shown" in err
    assert "6 sheets, overview.png, patterns.json and index.html are in patterns; open index.html in a browser" in err
    found = names(place / "patterns")
    assert found[:2] == ["index.html", "overview.png"] and len(found) == 9
    with Image.open(place / "patterns" / "overview.png") as overview:
        assert overview.width > 1600  # two sides
    assert read["settings"]["baseline"] == "random" and len(read["random"]["patterns"]) == 3


def test_a_run_keeps_its_figures(ibot: Command, place: Path) -> None:
    runs.make_images(place / "train")
    runs.pretrain(place / "train", place / "run", "train.epochs=1", "monitor.knn_epochs=0")
    options = ["--num-patterns", "2", "--top-k", "3", "--no-baselines"]
    code, out, err = ibot(*options, weights="run", data="train")
    assert (code, out) == (0, "") and "are in run/figures/patterns;" in err and "raw pixels" not in err
    assert names(place / "run" / "figures") == ["patterns"]
    code, out, _ = ibot(*options, "--kind", "cls", "--json", weights="run", data="train")
    found = json.loads(out)
    assert code == 0 and found["folder"] == "run/figures/patterns-cls" and found["kind"] == "cls"
    assert {*found["files"], "patterns.json"} == set(names(place / "run" / "figures" / "patterns-cls"))
    assert found["grid"] == [1, 1] and found["patterns"][0]["members"][0]["row"] is None
    written = json.loads((place / found["folder"] / "patterns.json").read_text())
    assert {**written, "folder": found["folder"]} == found
    again = ibot(*options, weights="run", data="train")
    assert again[0] == 0  # over its own


def test_options_reach_the_result(ibot: Command, place: Path) -> None:
    first = json.loads(ibot("--json", "--no-baselines", "--num-patterns", "2", "--top-k", "2", "--out", "a")[1])
    one, two = (pattern["prototype"] for pattern in first["patterns"])
    options = ["--prototypes", f"{two},{one}", "--window", "3", "--top-k", "5", "--split", "all", "--out", "deep/b"]
    code, out, _ = ibot("--json", "--no-baselines", *options, "--seed", "4", "--min-brightness", "30")
    found = json.loads(out)
    assert code == 0 and [pattern["prototype"] for pattern in found["patterns"]] == [two, one]
    assert (found["order"], found["window"], found["top_k"], found["min_brightness"]) == ("chosen", 3, 5, 30)
    assert found["num_dark"] > 0 and found["settings"]["seed"] == 4 and found["purity"] is None
    assert (place / "deep" / "b" / "index.html").is_file()
    ordered = json.loads(ibot("--json", "--no-baselines", "--order", "purity", "--out", "c")[1])
    purities = [pattern["purity"] for pattern in ordered["patterns"]]
    assert ordered["order"] == "purity" and purities == sorted(purities, reverse=True)
    assert first["window"] == 5
    assert (first["settings"]["num_patterns"], first["settings"]["prototypes"]) == (2, None)
    assert found["settings"]["prototypes"] == [two, one]


def test_without_labels(ibot: Command) -> None:
    code, _, err = ibot("--num-patterns", "2", data="images/dark")
    assert code == 0 and "Purity" not in err and "raw pixels" not in err
    assert "1 sheet, overview.png" in err and "6 images, 96 patches." in err
    code, _, err = ibot("--num-patterns", "1", "--kind", "cls", "--out", "whole", data="images/dark")
    assert code == 0 and "1 sheet, overview.png" in err and "6 images." in err and "patch" not in err


def test_what_is_as_it_should_be_is_no_warning(ibot: Command, place: Path) -> None:
    code, _, err = ibot("--num-patterns", "1", "--min-brightness", "30", "--no-baselines")
    assert code == 0 and "warning" not in err
    assert "\nThe weights hold no centre of the patches" in err and " dark and were left out" in err
    (place / "images" / "dark" / "broken.png").write_bytes(b"no image")
    code, _, err = ibot("--num-patterns", "99", "--no-baselines")
    assert code == 0 and "warning: 99 patterns were asked for;" in err and "warning: 1 image could not be read" in err


def test_a_single_class_has_nothing_to_compare(ibot: Command, place: Path) -> None:
    write_folder(place / "one", {"only": 5})
    code, _, err = ibot("--num-patterns", "2", data="one")
    assert code == 0 and "raw pixels" not in err


def test_an_interruption_leaves_nothing(ibot: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ibot_cli.visualize.patterns import files

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "overview_sheet", interrupted)
    assert ibot("--num-patterns", "2", "--no-baselines")[0] == cli.INTERRUPTED
    assert set(names(place)) == NOTHING_WRITTEN


@pytest.mark.parametrize(
    ("args", "code", "message", "hint"),
    [
        (["--window", "4"], 2, "--window 4: a window has its patch in the middle.", "Give an odd number"),
        (["--window", "9"], 2, "sees 4 x 4 patches, and windows of 7 already show", "Give at most 7"),
        (["--prototypes", "3,12"], 2, "There is no prototype 12: these weights have 12.", "numbered 0 to 11"),
        (
            ["--prototypes", "3,x"],
            2,
            "--prototypes 3,x: 'x' is not a whole number.",
            "Write for example --prototypes 3,17",
        ),
        (["--out", "images"], 2, "--out images is not empty: it holds dark", "Name a new or an empty folder"),
        (["--out", "weights.pth"], 2, "--out weights.pth: weights.pth is a file.", "Name a folder"),
        (["--out", "."], 2, "--out . is the current folder.", "Name a new folder inside it."),
        (["--split", "test"], 1, "has no test", "val"),
        (["--precision", "fp8"], 2, "fp8", ""),
        (["--min-brightness", "255"], 1, "Every patch of images is dark", "Lower the minimal brightness"),
    ],
)
def test_errors_leave_nothing_behind(
    ibot: Command, place: Path, args: list[str], code: int, message: str, hint: str
) -> None:
    found, out, err = ibot(*args)
    assert (found, out) == (code, "") and message in err and hint in err
    assert set(names(place)) == NOTHING_WRITTEN


def test_an_order_that_needs_labels(ibot: Command, place: Path) -> None:
    code, _, err = ibot("--order", "purity", data="images/dark")
    assert code == 2 and "The images have no labels, so prototypes cannot be ordered by purity." in err
    assert set(names(place)) == NOTHING_WRITTEN


def test_weights_without_a_head(ibot: Command, place: Path) -> None:
    code, _, err = ibot(weights="bare.pth")
    assert code == 1 and "these weights have no head, and patterns are the head's prototypes." in err
    assert set(names(place)) == NOTHING_WRITTEN

"""`ibot visualize-correspondence` as people type it."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibot_cli.core.backbone import build_backbone
from ibot_cli.runs.evaluations import read_evaluations
from tests.commands.conftest import Command, Done, Ibot
from tests.evaluate.images import write_folder
from tests.weights.finetuned_files import write_run

PUBLISHED = ("--changes", "published")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(arch="vit_tiny", image_size=16, channels=3, patch_size=4, width=16, depth=2, heads=2)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    write_folder(tmp_path / "images", {"a": 3, "b": 4})
    Image.effect_noise((50, 30), 80).save(tmp_path / "one.png")
    Image.effect_noise((40, 40), 80).convert("RGB").save(tmp_path / "two.jpg")
    return tmp_path


@pytest.fixture
def ibot(ibot: Ibot) -> Command:
    def run(*args: str, weights: str = "weights.pth") -> Done:
        heads = ("--heads", "2") if weights.endswith(".pth") else ()
        return ibot("visualize-correspondence", weights, *args, *heads, "--device", "cpu")

    return run


def test_two_images(ibot: Command, place: Path) -> None:
    code, out, err = ibot("one.png", "two.jpg", "--size", "32", "--json", "--out", "both.png")
    assert code == 0 and err.splitlines()[-1] == "The picture is both.png."
    assert err.startswith("Of 8 x 13 and 8 x 8 patches, ")
    found = json.loads(out)
    assert found["images"] == ["one.png", "two.jpg"] and found["sizes"] == [[50, 30], [40, 40]]
    assert set(found["matches"][0]) == {"cosine", "first", "second", "first_point", "second_point", "steps"}
    assert all(0 < m["first_point"][0] < 50 and 0 < m["second_point"][1] < 40 for m in found["matches"])
    assert Image.open(place / "both.png").width > 800


def test_one_image(ibot: Command, place: Path) -> None:
    code, out, err = ibot("one.png", "--pairs", "6", "--json")
    assert code == 0 and "random weights (mean of 3)" in err and "same place" in err and "chance" in err
    assert "6 pairs of views of 1 image; views of 16 pixels, 4 x 4 patches, 40% to 100% of the largest crop" in err
    found = json.loads(out)
    assert (found["num_images"], found["num_pairs"], len(found["pairs"]), len(found["random"])) == (1, 6, 6, 3)
    assert found["chance"]["accuracy"] == 1 / 16 and found["trained"]["interval"] is not None
    assert [pair["matches"] is not None for pair in found["pairs"]] == [True] + [False] * 5
    assert (place / "correspondence.png").is_file()
    again = json.loads(ibot("one.png", "--pairs", "6", "--json")[1])
    assert again == found and json.loads(ibot("one.png", "--pairs", "6", "--json", "--seed", "1")[1]) != found


def test_changes_of_views(ibot: Command) -> None:
    code, out, err = ibot("one.png", "--pairs", "2", "--no-baselines", "--changes", "none", "--json")
    assert code == 0 and "of the largest crop, not mirrored, no jitter." in err
    assert json.loads(out)["changes"] == "not mirrored, no jitter"
    published = [json.loads(ibot("one.png", "--no-baselines", "--json", *more)[1]) for more in ((), PUBLISHED)]
    assert published[0] == published[1] and published[0]["changes"].startswith("mirrored 50%, jitter 80%")


def test_data(ibot: Command, place: Path) -> None:
    (place / "images" / "a" / "0.png").write_bytes(b"")
    code, out, err = ibot("images", "--images", "5", "--rows", "2", "--json", "--no-baselines")
    assert code == 0 and "could not be read and was left out: the file is empty." in err
    found = json.loads(out)
    assert (found["num_images"], found["num_pairs"], found["random"]) == (4, 2, [])
    assert sum(pair["matches"] is not None for pair in found["pairs"]) == 2
    assert "random weights" not in err and "looked up in 2 pairs of views of each of 4 images; views of" in err


def test_a_run_keeps_a_picture_of_each_call_and_data_as_typed(ibot: Command, place: Path) -> None:
    write_run(place / "run")
    write_folder(place / "split" / "train", {"a": 2, "b": 2})
    write_folder(place / "split" / "test", {"a": 2, "b": 2})
    calls = {("one.png", "two.jpg"): "one_two", ("one.png",): "views_one", ("split/",): "views_split"}
    for images, name in calls.items():
        code, _, err = ibot(*images, "--no-baselines", weights="run")
        assert code == 0 and err.splitlines()[-1] == f"The picture is run/figures/correspondence_{name}.png."
    assert {f"correspondence_{name}.png" for name in calls.values()} == {
        path.name for path in (place / "run" / "figures").iterdir()
    }
    assert "Patches found again on split/ (test): " in err and not (place / "correspondence.png").exists()
    (record,) = read_evaluations(place / "run")
    assert record["data"] == record["result"]["data"] == "split/"
    (checkpoint,) = Path("run/checkpoints").glob("*.pt")
    assert "run/figures/" in ibot("one.png", "--no-baselines", weights=str(checkpoint))[2]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["one.png", "--out", "found.jpg"], 2, "--out found.jpg does not end in .png."),
        (["one.png", "images"], 2, "images is not an image file."),
        (["absent.png"], 1, "absent.png: cannot be read (No such file or directory)."),
        (["absent"], 1, "There is no folder or file absent."),
        (["one.png", "--size", "3"], 2, "--size 3 is less than one patch of weights.pth, which is 4 pixels."),
        (["one.png", "--precision", "fp8"], 2, "There is no precision 'fp8'."),
    ],
)
def test_errors(ibot: Command, args: list[str], code: int, message: str) -> None:
    found, out, err = ibot(*args)
    assert (found, out) == (code, "") and err.startswith(f"error: {message}")
    assert "hint: " in err and not Path("correspondence.png").exists()

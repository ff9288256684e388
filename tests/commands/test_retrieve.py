"""`ibot retrieve` as people type it."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.core.backbone import build_backbone
from ibot_cli.runs.evaluations import read_evaluations
from tests.commands.conftest import Command, Done, Ibot
from tests.evaluate.images import write_folder
from tests.train import runs


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images and weights."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=1, heads=2)
    torch.save(backbone.state_dict(), "weights.pth")
    write_folder(tmp_path / "images", {"dark": 9, "grey": 8, "light": 7})
    return tmp_path


@pytest.fixture
def ibot(ibot: Ibot) -> Command:
    def run(*args: str, weights: str = "weights.pth", data: str = "images") -> Done:
        heads = () if weights == "run" else ("--heads", "2")
        return ibot("retrieve", weights, data, *heads, "--device", "cpu", *args)

    return run


def test_scores_beside_baselines(ibot: Command) -> None:
    code, out, err = ibot()
    assert (code, out) == (0, "")
    found = json.loads(ibot("--json")[1])
    known = found["baselines"]
    rows = {
        "this network": (found["mean_average_precision"], found["precision_at"]),
        "random weights, mean of 3 seeds": (
            found["baselines"]["random_map"],
            found["baselines"]["random_precision_at"],
        ),
        "raw pixels, 32 x 32": (known["pixels_map"], known["pixels_precision_at"]),
    }
    for name, (mean, precision) in rows.items():
        (line,) = [line for line in err.splitlines() if line.startswith(name)]
        numbers = [mean, *(precision[k] for k in ("1", "5", "10"))]
        assert line.removeprefix(name).split() == [f"{number:.2%}" for number in numbers]
    assert (
        "Each image is looked up among all the others. 24 queries, gallery of 24 images, 3 classes; pooling cls." in err
    )
    assert len(found["queries"]) == 24 and all(len(query["neighbours"]) == 10 for query in found["queries"])
    assert set(found["queries"][0]["neighbours"][0]) == {"path", "place", "similarity", "label"}


def test_digits_test_against_train(ibot: Command) -> None:
    code, out, err = ibot("--json", "--no-baselines", "--k", "2", data="builtin:digits")
    found = json.loads(out)
    assert code == 0 and (found["num_queries"], found["num_gallery"], found["num_counted"]) == (360, 1437, 360)
    assert 0.1 < found["mean_average_precision"] < found["precision_at"]["1"] and found["baselines"] is None
    assert found["protocol"] == "Each test image is looked up among the training images."
    assert "random weights" not in err


def test_the_answer_is_the_same_with_and_without_faiss(ibot: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    found = [ibot("--json", "--backend", backend, data="images/dark")[1] for backend in ("torch", "faiss")]
    assert found[0] == found[1] and len(json.loads(found[0])["queries"]) == 9
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert ibot("--json", data="images/dark")[1] == found[0]
    code, _, err = ibot("--backend", "faiss")
    assert code == 2 and "error: faiss is not installed, or does not fit this machine." in err


def test_queries_as_table_and_files(ibot: Command, place: Path) -> None:
    (place / "broken.png").write_bytes(b"no image")
    code, out, err = ibot("images/light/2.png", "broken.png", "--k", "3", "--out", "found.csv", "--sheet", "found.png")
    assert (code, out) == (0, "") and "mAP" not in err
    lines = [line for line in err.splitlines() if line.lstrip().startswith(("1 ", "2 ", "3 "))]
    with (place / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["query"], row["rank"]) for row in rows] == [("images/light/2.png", str(rank)) for rank in (1, 2, 3)]
    for line, row in zip(lines, rows, strict=True):
        assert row["path"] in line and f"{float(row['similarity']):.4f}" in line
        assert row["query_label"] == "light" and row["path"] != str(place / "images" / "light" / "2.png")
    assert "warning: broken.png could not be read and was left out: not an image" in err
    assert "Written to found.csv: the neighbours of 1 query." in err
    assert "Drawn in found.png: 1 of 1 query." in err and Image.open(place / "found.png").width > 300


def test_without_labels_the_first_queries_are_shown(ibot: Command) -> None:
    code, _, err = ibot("--k", "100", data="images/dark")
    assert code == 0 and "mAP  " not in err
    assert "images/dark has no labels, so mAP and precision are left out" in err
    assert "k = 100 was cut to the 8 images that a query can find." in err
    assert "... and 4 more queries: --json, --out or --sheet has them." in err


def test_duplicates(ibot: Command, place: Path) -> None:
    Image.open(place / "images/dark/3.png").save(place / "images/grey/again.bmp")
    code, out, err = ibot("--duplicates", "--threshold", "0.99999", "--out", "d.csv", "--sheet", "d.png", "--json")
    assert code == 0
    found = json.loads(out)
    again = [image for group in found["groups"] for image in group if image["identical_to"]]
    assert [image["path"] for image in again] == [str(place / "images/grey/again.bmp")]
    assert again[0]["identical_to"] == str(place / "images/dark/3.png")
    assert found["num_images"] == 25 and found["num_mixed"] >= 1 and found["num_across"] is None
    assert f"identical to {place}/images/dark/3.png" in err and "1 with the very pixels of an earlier one" in err
    with (place / "d.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == found["num_grouped"]
    assert np.asarray(Image.open(place / "d.png")).std() > 5
    assert not (place / "evaluations.jsonl").exists()


def test_no_duplicates(ibot: Command, place: Path) -> None:
    for index, colour in enumerate(("black", "white")):
        (place / "two").mkdir(exist_ok=True)
        image = Image.new("L", (16, 16), colour)
        image.paste(128, (0, 0, 8, 4 + 8 * index))
        image.save(place / "two" / f"{index}.png")
    code, _, err = ibot("--duplicates", "--threshold", "0.99999", "--sheet", "d.png", data="two")
    assert code == 0 and "None of 2 images has a duplicate: no cosine is above 0.99999." in err
    assert "There is no duplicate to draw in d.png." in err and not (place / "d.png").exists()


def test_recorded_in_the_run(ibot: Command, place: Path) -> None:
    runs.make_images(place / "train")
    runs.pretrain(place / "train", place / "run", "train.epochs=1", "monitor.knn_epochs=0")
    assert "Recorded in run/evaluations.jsonl." in ibot("--no-baselines", weights="run")[2]
    (record,) = read_evaluations(Path("run"))
    assert record["command"] == "retrieve" and record["settings"]["pooling"] == "cls"
    assert 0 < record["result"]["mean_average_precision"] <= 1 and record["result"]["num_counted"] == 24
    assert "Recorded" not in ibot("images/dark/1.png", weights="run")[2]  # nothing was scored
    assert "Recorded" not in ibot("--duplicates", weights="run")[2]
    assert "Recorded" not in ibot("--json", "--no-baselines", weights="run")[2]
    assert len(read_evaluations(Path("run"))) == 2


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nothing.png"], 1, "error: There is no image or folder nothing.png."),
        (["weights.pth"], 1, "error: No image of weights.pth can be read"),
        (["images", "--duplicates"], 2, "error: --duplicates compares the images of DATA with each other."),
        (["--duplicates", "--threshold", "1"], 2, "error: --threshold 1.0 is not above 0 and at most 0.99999."),
        (["--out", "found.txt"], 2, "error: --out found.txt does not end in .csv."),
        (["--sheet", "no/found.png"], 2, "error: --sheet no/found.png: there is no folder no."),
        (["--pooling", "max"], 2, "error: 'max' is not a pooling"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--k", "0"], 2, "Invalid value for '--k'"),
        (["--split", "test"], 1, "error: images has no test part."),
    ],
)
def test_errors(ibot: Command, place: Path, args: list[str], code: int, message: str) -> None:
    before = sorted(place.iterdir())
    found, out, err = ibot(*args)
    assert (found, out) == (code, "") and message in err
    assert sorted(place.iterdir()) == before


def test_an_empty_gallery(ibot: Command, place: Path) -> None:
    (place / "empty").mkdir()
    code, out, err = ibot("images/dark/1.png", data="empty")
    assert (code, out) == (1, "") and "error: empty holds no files." in err

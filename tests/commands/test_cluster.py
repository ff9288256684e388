"""`ibot cluster` as people type it."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.runs.evaluations import read_evaluations
from tests.commands.conftest import Command, Done, Ibot
from tests.evaluate.images import write_folder
from tests.train import runs

NOTHING_WRITTEN = {"images", "weights.pth", "bare.pth"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images, and weights with and without a head."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=1, heads=2)
        head = Head(16, 12, hidden_size=8, bottleneck_size=4)
    torch.save(backbone.state_dict(), "bare.pth")
    parts = {"backbone": backbone, "head": head}
    state = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    torch.save({"teacher": state}, "weights.pth")
    write_folder(tmp_path / "images", {"dark": 9, "grey": 8, "light": 7})
    return tmp_path


@pytest.fixture
def ibot(ibot: Ibot) -> Command:
    def run(*args: str, weights: str = "weights.pth", data: str = "images") -> Done:
        heads = () if weights == "run" else ("--heads", "2")
        return ibot("cluster", weights, data, *heads, "--device", "cpu", *args)

    return run


def cells(text: str, name: str) -> list[list[str]]:
    """The cells of each table row that starts with `name`."""
    return [line.removeprefix(name).split() for line in text.splitlines() if line.startswith(name)]


def test_what_people_see(ibot: Command) -> None:
    code, out, err = ibot("--k", "3,5")
    assert (code, out) == (0, "")
    found = json.loads(ibot("--k", "5,3", "--json")[1])
    own, three, five = found["rows"]
    for name, rows in (("own prototypes", [own]), ("k-means", [three, five])):
        lines = cells(err, name)  # of two tables
        for row, scored, counted in zip(rows, lines[: len(rows)], lines[len(rows) :], strict=True):
            scores = row["scores"]
            numbers = [scores["nmi"], scores["chance"]["nmi"], scores["ami"], scores["ari"], scores["fmi"]]
            assert scored == [str(row["k"]), *(f"{number:.3f}" for number in numbers)]
            sizes = row["sizes"]
            expected = [str(row["k"]), str(sizes["used"])]
            expected += f"{sizes['smallest']} / {sizes['median']:g} / {sizes['largest']}".split()
            expected += [f"{scores['purity']:.1%}", f"{scores['chance']['purity']:.1%}"]
            expected += [] if row["k"] != 3 else [f"{scores['hungarian_accuracy']:.1%}"]
            assert counted == expected
    for name in ("random weights, mean of 3 seeds", "raw pixels"):
        assert len(cells(err, name)) == 4 and found["baselines"]
    assert "24 images: all images of images. 3 classes. k-means by cosine of standardised features" in err
    assert "By chance: mean of 20 random assignments to clusters of the same sizes" in err
    assert "K = 3: NMI of the 10 runs" in err and "K = 12: NMI" not in err


def test_digits_by_default_the_test_part(ibot: Command) -> None:
    code, out, err = ibot("--json", "--no-baselines", "--restarts", "2", data="builtin:digits")
    found = json.loads(out)
    assert code == 0 and found["num_images"] == 360 and found["split"] == "360 images: test images of builtin:digits."
    assert [row["k"] for row in found["rows"]] == [12, 10] and found["baselines"] == []
    assert found["restarts"] == 2 and "random weights" not in err


def test_files_and_figures(ibot: Command, place: Path) -> None:
    code, _, err = ibot("--k", "3", "--no-baselines", "--out", "c.csv", "--figures", "figures", "--max-figures", "1")
    assert code == 0
    assert "The cluster of each image is in c.csv." in err and "4 picture sheets are in figures." in err
    with (place / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "prototype", "kmeans_3"] and len(rows) == 24
    assert {row["label"] for row in rows} == {"dark", "grey", "light"}
    assert rows[0]["path"] == str(place / "images" / "dark" / "0.png")
    figures = sorted(file.name for file in (place / "figures").iterdir())
    assert figures[:2] == ["kmeans_3_cluster_0.png", "kmeans_3_overview.png"] and len(figures) == 4
    assert Image.open(place / "figures" / "kmeans_3_overview.png").width > 600


def test_without_labels(ibot: Command) -> None:
    code, _, err = ibot("--k", "2,4", data="images/dark")
    assert code == 0 and "NMI" not in err and "Hungarian" not in err
    assert [len(row) for row in cells(err, "k-means") if row[0] in "24"] == [9, 9]  # silhouette and stability
    assert "Silhouette: cosine distances of 9 images" in err and "Stability: mean adjusted Rand index" in err


def test_without_a_head(ibot: Command) -> None:
    code, _, err = ibot("--no-baselines", weights="bare.pth")
    assert code == 0 and "own prototypes" not in err
    assert "warning: These weights have no projection head, so there are no prototypes to cluster by." in err


def test_options_reach_the_result(ibot: Command) -> None:
    options = ["--no-spherical", "--no-standardize", "--backend", "faiss", "--seed", "4", "--split", "all"]
    code, out, err = ibot("--json", "--no-baselines", "--no-cache", "--restarts", "1", *options)
    found = json.loads(out)
    assert code == 0 and not found["spherical"] and not found["standardized"]
    assert (found["backend"], found["seed"], found["silhouette_metric"]) == ("faiss", 4, "euclidean")
    assert "k-means by Euclidean distance of features as they are, faiss." in err


def test_recorded_in_the_run(ibot: Command, place: Path) -> None:
    runs.make_images(place / "train")
    runs.pretrain(place / "train", place / "run", "train.epochs=1", "monitor.knn_epochs=0")
    code, out, err = ibot("--k", "3", "--no-baselines", weights="run", data="train")
    assert (code, out) == (0, "") and "Recorded in run/evaluations.jsonl." in err
    (record,) = read_evaluations(Path("run"))
    assert record["command"] == "cluster" and record["result"]["rows"][0]["method"] == "prototypes"
    assert record["settings"]["k"] == [3] and record["settings"]["restarts"] == 10
    assert "Recorded" not in ibot("--json", "--no-baselines", weights="run", data="train")[2]
    assert len(read_evaluations(Path("run"))) == 2


@pytest.mark.parametrize("text", ["ten", "0", "-3", "", "5,,6", "1.5", "5 6"])
def test_a_k_that_is_none(ibot: Command, place: Path, text: str) -> None:
    code, out, err = ibot("--k", text)
    assert code == 2 and out == "" and "is not a positive whole number." in err
    assert "hint: Write for example --k 10,20,50." in err


@pytest.mark.parametrize(
    ("args", "code", "message", "hint"),
    [
        (["--k", "3,25"], 2, "--k 25: there are only 24 images", "Ask for 24 clusters at most"),
        (["--figures", "weights.pth"], 2, "--figures weights.pth: weights.pth is a file.", "Name a folder"),
        (["--out", "images"], 2, "--out images is a folder.", "Name a file"),
        (["--out", "none/c.csv"], 2, "there is no folder none.", "Make it first"),
        (["--split", "test"], 1, "has no test", "val"),
        (["--precision", "fp8"], 2, "fp8", ""),
    ],
)
def test_errors_leave_nothing_behind(
    ibot: Command, place: Path, args: list[str], code: int, message: str, hint: str
) -> None:
    found, out, err = ibot(*args)
    assert (found, out) == (code, "") and message in err and hint in err
    assert {entry.name for entry in place.iterdir()} == NOTHING_WRITTEN


def test_weights_that_are_not_there(ibot: Command) -> None:
    code, _, err = ibot(weights="nothing.pth")
    assert code == 1 and "nothing.pth" in err

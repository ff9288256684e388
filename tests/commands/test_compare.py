import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ibot_cli.cli import app
from ibot_cli.durable import write_json
from ibot_cli.errors import RunError, UsageError
from ibot_cli.runs.metrics import MetricsLog
from tests.evaluate.records import add, add_cluster, add_knn, new_run


def run(*args: Path | str) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, args)], catch_exceptions=False)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    made = [new_run(tmp_path / name, 10) for name in ("first", "second")]
    for path, share in zip(made, (0.9, 0.95), strict=True):
        add_knn(path, share)
        add(path, "retrieve", mean_average_precision=share - 0.2, baselines={"random_map": 0.1, "pixels_map": 0.8})
    return made


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_one_run(runs: list[Path]) -> None:
    result = run(runs[0])
    assert result.exit_code == 0 and result.stdout == ""
    table = lines(result.stderr)
    assert ["k-NN", "top-1", "90.00%", "86.7", "to", "92.6", "%", "40.00%", "90.00%"] in table
    assert ["retrieval", "mAP", "70.00%", "-", "10.00%", "80.00%", "*"] in table
    assert f"first: teacher of {runs[0]}/checkpoints/step-00000010.pt, step 10" in result.stderr
    assert "Data: builtin:digits. * marks the best of each row, where the interval decides it" in result.stderr


@pytest.mark.parametrize(
    ("reached", "interval", "marks"),
    [(0.157, [0.131, 0.187], ("", "")), (0.3, [0.2, 0.4], (" *", "")), (0.1, [0.08, 0.12], ("", " *"))],
)
def test_the_same_place_is_a_baseline(
    tmp_path: Path, reached: float, interval: list[float], marks: tuple[str, str]
) -> None:
    path = new_run(tmp_path / "run", 10)
    add(path, "visualize-correspondence", trained={"accuracy": reached, "interval": interval},
        random=[{"accuracy": 0.09}], chance={"same_place": 0.154})  # fmt: skip
    table = lines(run(path).stderr)
    low, high = (f"{limit * 100:.1f}" for limit in interval)
    assert table[1][-6:] == ["random", "weights", "raw", "pixels", "same", "place"]
    row = f"patches found again {reached:.2%}{marks[0]} {low} to {high} % 9.00% - 15.40%{marks[1]}"
    assert row.split() in table
    other = new_run(tmp_path / "other", 10)
    add(other, "visualize-correspondence", trained={"accuracy": 0.5}, random=[], chance={"same_place": 0.154})
    assert ["same", "place", "15.40%"] in lines(run(path, other).stderr)
    rows = list(csv.DictReader(io.StringIO(run(path, "--csv").stdout)))
    assert (rows[0]["same_place"], rows[0]["low"], rows[0]["high"]) == ("0.154", *map(str, interval))


def test_two_runs(runs: list[Path]) -> None:
    result = run(*runs)
    table = lines(result.stderr)
    assert ["Measure", "first", "second", "random", "weights", "raw", "pixels"] in table
    assert ["k-NN", "top-1", "90.00%", "95.00%", "*", "40.00%", "90.00%"] in table
    assert ["retrieval", "mAP", "70.00%", "75.00%", "*", "10.00%", "80.00%"] in table
    difference = ["k-NN", "top-1", "second", "less", "first", "+5.00", "+3.26", "to", "+7.60", "the", "same", "images"]
    assert difference in table
    assert ["retrieval", "mAP", "second", "less", "first", "+5.00", "-", "-"] in table


def test_agreement_of_clusters_is_no_percentage(runs: list[Path]) -> None:
    for path, nmi in zip(runs, (0.8, 0.75), strict=True):
        add_cluster(path, nmi)
    table = lines(run(*runs).stderr)
    assert ["k-means", "NMI", "0.800", "*", "0.750", "0.300", "0.700"] in table
    assert ["k-means", "ACC", "75.00%", "*", "75.00%", "*", "20.00%", "20.00%"] in table
    assert ["prototypes", "NMI", "0.600", "*", "0.550", "-", "-"] in table
    assert ["k-means", "NMI", "second", "less", "first", "-0.050", "-", "-"] in table


def test_more_runs_than_measures_are_rows(tmp_path: Path) -> None:
    paths = [new_run(tmp_path / name, 10) for name in "abc"]
    for path, random in zip(paths, (0.4, 0.5, None), strict=True):
        add_knn(path, 0.9, baseline_random=random)
    table = lines(run(*paths).stderr)
    assert ["Run", "k-NN", "top-1"] in table and ["b", "90.00%", "*"] in table
    assert ["random", "weights", "40.00%", "to", "50.00%"] in table and ["raw", "pixels", "90.00%"] in table


def test_json_and_csv_are_the_only_thing_on_stdout(runs: list[Path]) -> None:
    found = json.loads(run(*runs, "--json").stdout)
    assert found["runs"] == ["first", "second"] and found["columns"][0]["best"] == [1]
    assert found["differences"][0]["method"] == "paired"
    result = run(*runs, "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["run"], row["measure"], float(row["value"])) for row in rows] == [
        ("first", "k-NN top-1", 0.9),
        ("second", "k-NN top-1", 0.95),
        ("first", "retrieval mAP", pytest.approx(0.7)),
        ("second", "retrieval mAP", 0.75),
    ]
    assert (rows[0]["images"], rows[0]["random_weights"], rows[0]["settings"]) == (
        "400",
        "0.4",
        "k=20 temperature=0.07",
    )
    assert rows[2]["low"] == "" and rows[2]["images"] == "" and rows[0]["fingerprint"] == "digits"


def test_curves(runs: list[Path], tmp_path: Path) -> None:
    for path in runs:
        log = MetricsLog(path / "metrics.jsonl")
        log.append({"step": 1, "loss/total": 1.0})
        log.append(*({"step": e, "epochs_done": e, "knn_accuracy": 0.1 * e} for e in range(1, 5)))
        log.append({"step": 5, "epochs_done": 5, "knn_accuracy": None})
    curve = [{"step": 10 * e, "epoch": e, "top1": 0.2 * e} for e in (1, 2)]
    add_knn(runs[1], 0.9, curve=curve)
    result = run(*runs, "--plot", tmp_path / "curves.svg")
    assert result.exit_code == 0 and f"Curves: {tmp_path}/curves.svg" in result.stderr
    drawn = (tmp_path / "curves.svg").read_text()
    for text in ("k-NN accuracy on held-out training images, while pre-training", "first 40.0%", "second 40.0%"):
        assert text in drawn
    assert "k-NN accuracy on builtin:digits by checkpoint, k = 20, T = 0.07" in drawn
    assert drawn.count("second 40.0%") == 2 and drawn.count("first 40.0%") == 1


def test_curves_of_runs_without_evaluations(tmp_path: Path) -> None:
    path = new_run(tmp_path / "run", 10)
    MetricsLog(path / "metrics.jsonl").append({"step": 3, "epochs_done": 1, "knn_accuracy": 0.5})
    result = run(path, "--plot", tmp_path / "curves.png")
    assert result.exit_code == 0 and (tmp_path / "curves.png").read_bytes()[1:4] == b"PNG"
    assert f"warning: run has no recorded evaluation; run for example: ibot knn-eval {path} DATA" in result.stderr


def test_curves_of_fine_tuning_on_different_images(tmp_path: Path) -> None:
    paths = [new_run(tmp_path / name, 10) for name in ("tuned", "scratch", "other")]
    for path, fingerprint in zip(paths, ("x", "x", "y"), strict=True):
        write_json(path / "data.json", {"fingerprint": fingerprint})
        MetricsLog(path / "metrics.jsonl").append({"step": 9, "epochs_done": 3, "test/top1_accuracy": 0.5})
    assert run(*paths, "--plot", tmp_path / "curves.svg").exit_code == 0
    drawn = (tmp_path / "curves.svg").read_text()
    for names in ("tuned, scratch", "other"):
        assert f">Fine-tuning: accuracy on test images: {names}<" in drawn


def test_nothing_to_draw(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Nothing was recorded over epochs") as caught:
        run(runs[0], "--plot", tmp_path / "curves.svg")
    assert caught.value.hint is not None and f"ibot knn-eval {runs[0]} DATA --checkpoints all" in caught.value.hint
    assert not (tmp_path / "curves.svg").exists()


def test_wrong_usage(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both want stdout"):
        run(runs[0], "--json", "--csv")
    with pytest.raises(UsageError, match="is given twice"):
        run(runs[0], runs[1], f"{runs[0]}/../first")
    with pytest.raises(UsageError, match=r"neither \.svg nor \.png"):
        run(runs[0], "--plot", tmp_path / "curves.pdf")
    with pytest.raises(RunError, match="No evaluation is recorded in"):
        run(new_run(tmp_path / "bare"))


def test_quiet(runs: list[Path], tmp_path: Path) -> None:
    bare = new_run(tmp_path / "bare")
    arguments = ["--quiet", "compare", str(runs[0]), str(bare)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    warning = f"warning: bare has no recorded evaluation; run for example: ibot knn-eval {bare} DATA\n"
    assert (result.stdout, result.stderr) == ("", warning)
    assert "k-NN top-1" in run(runs[0]).stderr

"""What the overview says about what a run went on from."""

from __future__ import annotations

import json
from pathlib import Path

from ibot_cli.visualize.report.evaluations import evaluated
from ibot_cli.visualize.report.overview import lead, overview_section
from ibot_cli.visualize.report.record import read_run
from tests.visualize.report.runs import finetune_run, pretrain_run

START = {"weights": "/there/a.pt", "description": "teacher of a.pt, step 7", "sentences": ["checkpoint", "head kept"]}


def knn_card(path: Path) -> str:
    run = read_run(path)
    (about,) = (card.about for card in overview_section(run, evaluated(run)).values["cards"] if "k-NN" in card.name)
    return str(about)


def test_a_run_from_weights_says_so_and_where_its_k_nn_began(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run", init=START)
    assert lead(read_run(path)).endswith("(train). It went on from the teacher of a.pt, step 7: head kept.")
    lines = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(json.dumps({"step": 0, "epochs_done": 0, "knn_accuracy": 0.5}) + "\n" + lines)
    assert knn_card(path) == "while training, on held-out training images; 50.0% before the first step"


def test_a_run_from_random_weights_has_nothing_to_say_about_them(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    assert "went on" not in lead(read_run(path))
    assert knn_card(path) == "while training, on held-out training images"


def test_what_was_fine_tuned(tmp_path: Path) -> None:
    text = lead(read_run(finetune_run(tmp_path / "run")))
    assert text == "Fine-tuning of the teacher of runs/digits on builtin:digits (train)."

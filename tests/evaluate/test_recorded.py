"""Figures of exactly these weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ibot_cli.evaluate.recorded import recorded_figures
from ibot_cli.weights.loaded import LoadedBackbone
from tests.weights.export.networks import VIT, loaded_backbone


def knn(top1: float, weights_hash: str, **changes: Any) -> dict[str, Any]:
    result = {"top1": top1, "num_test": 10, "k": 20, "temperature": 0.07, "baseline_random": 0.25} | changes
    return {"time": "", "command": "knn-eval", "weights": "run", "step": 1, "weights_hash": weights_hash,
            "data": "/home/someone/photos", "fingerprint": "f", "settings": {}, "result": result}  # fmt: skip


def in_run(run: Path, *records: dict[str, Any]) -> LoadedBackbone:
    (run / "evaluations.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    loaded = loaded_backbone(VIT)
    return replace(loaded, origin=replace(loaded.origin, run=run))


def test_the_newest_of_these_weights_with_its_baselines(tmp_path: Path) -> None:
    own = loaded_backbone(VIT).weights_hash
    found = recorded_figures(in_run(tmp_path, knn(0.5, own), knn(0.9, "others"), knn(0.75, own)))
    assert len(found) == 1
    assert (found[0].measure, found[0].data, found[0].value, found[0].random) == ("k-NN top-1", "photos", 0.75, 0.25)


def test_the_same_again_without_baselines_takes_none_away(tmp_path: Path) -> None:
    own = loaded_backbone(VIT).weights_hash
    found = recorded_figures(in_run(tmp_path, knn(0.75, own), knn(0.75, own, baseline_random=None)))
    assert [figure.random for figure in found] == [0.25]


def test_without_a_run_or_with_a_damaged_record_there_are_none(tmp_path: Path) -> None:
    assert recorded_figures(loaded_backbone(VIT)) == ()
    loaded = in_run(tmp_path)
    assert recorded_figures(loaded) == ()
    (tmp_path / "evaluations.jsonl").write_text("{\n{}\n")
    assert recorded_figures(loaded) == ()

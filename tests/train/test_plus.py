"""A run with KoLeo, layer scale and heads of their own for patches: recorded, resumed, exported, gone on with."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.train.launch import prepare
from ibot_cli.train.request import Request
from ibot_cli.weights.export.compare import compare, comparison_images
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.official_form import OFFICIAL
from ibot_cli.weights.export.request import open_subject
from ibot_cli.weights.export.safetensors_form import SAFETENSORS
from ibot_cli.weights.load import load_weights
from tests.train import runs

PLUS = (
    "objective.koleo_weight=0.1",
    "model.layer_scale=1e-5",
    "head.shared=false",
    "head.separate_mlp=true",
    "head.patch_prototypes=12",
)
SHORT = (
    "train.epochs=1",
    "optim.warmup_epochs=0",
    "optim.freeze_prototypes_epochs=0",
    "monitor.knn_epochs=0",
    "train.checkpoint_steps=1",
    "train.keep_last=99",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("data") / "images", per_class=6)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plus") / "run"
    runs.pretrain(images, out, *PLUS, *SHORT)
    return out


def test_the_terms_are_recorded_and_add_up(whole: Path) -> None:
    steps = [record for record in runs.metrics(whole) if "loss/total" in record]
    assert steps and all({"loss/cls", "loss/patch", "loss/koleo"} <= record.keys() for record in steps)
    for record in steps:
        parts = math.fsum(record[f"loss/{name}"] for name in ("cls", "patch", "koleo"))
        assert record["loss/total"] == pytest.approx(parts, abs=1e-6)


def test_all_of_it_learns_and_the_teacher_follows(whole: Path) -> None:
    (first, *_), last = checkpoint.paths(whole / "checkpoints"), runs.final_state(whole)
    before = checkpoint.load(first).state
    for name in ("backbone.blocks.1.ls2.gamma", "head.mlp2.0.weight", "head.last_layer2.weight_v"):
        for network in ("student", "teacher"):
            assert not torch.equal(before[network][name], last[network][name]), (network, name)


@pytest.mark.slow
def test_resumed_in_the_middle_it_ends_the_same(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for path in checkpoint.paths(tmp_path / "run" / "checkpoints")[1:]:
        path.unlink()
    runs.pretrain(None, tmp_path / "run", resume=True)
    runs.assert_same(runs.final_state(tmp_path / "run"), runs.final_state(whole))


def exported(whole: Path, form: Form, folder: Path, with_head: bool = False) -> dict[str, float]:
    subject, options = open_subject(str(whole), form, ExportOptions(with_head=with_head))
    form.check(subject, options)
    form.write(subject, folder, options)
    differences = compare(
        subject.network, form.read_back(folder), comparison_images(subject)(subject.image_size), form.leaves_out
    )
    assert max(differences.values()) <= 1e-5
    return differences


def test_one_file_holds_all_of_it(whole: Path, tmp_path: Path) -> None:
    assert set(exported(whole, SAFETENSORS, tmp_path, with_head=True)) == {
        "cls", "patches", "cls_logits", "patch_logits"
    }  # fmt: skip
    found, loaded = (load_weights(str(path)) for path in (tmp_path / "model.safetensors", whole))
    assert found.shape == loaded.shape and found.shape is not None and found.shape.layer_scale == 1e-5
    assert found.weights_hash == loaded.weights_hash
    assert found.head is not None and loaded.head is not None
    runs.assert_same(dict(found.head.state_dict()), dict(loaded.head.state_dict()))


def test_the_authors_layout_has_layer_scale_inside_other_layers_and_no_head(whole: Path, tmp_path: Path) -> None:
    assert set(exported(whole, OFFICIAL, tmp_path)) == {"cls", "patches"}
    content = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    names = [name for network in ("student", "teacher") for name in content[network]]
    assert not any("gamma" in name or "head" in name for name in names)
    assert content["optimizer"] == {"state": {}, "param_groups": []}
    subject, options = open_subject(str(whole), OFFICIAL, ExportOptions())
    head, folded = OFFICIAL.notes(subject, options)
    assert "or patches have an MLP of their own" in head and "Layer scale" in folded and "optimiser" in folded
    with pytest.raises(WeightsError, match=r"--with-head: .* or patches have an MLP of their own"):
        exported(whole, OFFICIAL, tmp_path, with_head=True)


def test_another_run_goes_on_with_all_of_it(images: Path, whole: Path, tmp_path: Path) -> None:
    request = Request(data=str(images), init=str(whole), out=tmp_path / "next", sets=[*runs.SMALL, *SHORT])
    prepared = prepare(request)
    config = prepared.plan.config
    assert config.model.layer_scale == 1e-5 and config.head.separate_mlp and not config.head.shared
    assert prepared.beginning is not None and prepared.beginning.head is not None
    other = [*runs.SMALL, *SHORT, "model.layer_scale=0"]
    with pytest.raises(UsageError, match=r"model\.layer_scale = 0\.0 was asked for \(--set\), the weights have 1e-05"):
        prepare(Request(data=str(images), init=str(whole), out=tmp_path / "other", sets=other))
    prepare(Request(data=str(images), init=str(whole), out=tmp_path / "third", sets=[*other[:-1], *PLUS[1:2]]))

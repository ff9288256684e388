"""Whole inspections of files whose state is known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ibot_cli.errors import DataError, WeightsError
from ibot_cli.evaluate.inspection.inspection import inspect_weights
from ibot_cli.evaluate.inspection.opening import open_weights
from ibot_cli.evaluate.inspection.probe import Probe, probe
from ibot_cli.evaluate.inspection.record import plain_values, record
from tests.evaluate.inspection.networks import fresh, silenced, with_structure, write_run
from tests.weights import finetuned_files

FILE = "checkpoints/step-00000120.pt"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", with_structure(fresh()), with_structure(fresh()))


def test_a_trained_run(run: Path) -> None:
    before = torch.random.get_rng_state()
    found = inspect_weights(str(run))
    assert torch.equal(before, torch.random.get_rng_state())
    assert found.verdict.state == "trained"
    assert (found.origin.layout, found.origin.which, found.origin.epoch) == (
        "checkpoint of ibot pretrain",
        "teacher",
        3,
    )
    assert found.architecture.sentence() == (
        "ViT, 16 px, 1 channel, patches of 4 px, width 32, depth 2, 2 heads; the nearest that has a name is ViT-Ti"
    )
    assert found.head is not None
    assert (found.head.prototypes, found.head.patch_prototypes, found.head.num_layers) == (40, None, 3)
    assert found.account.loaded == len(fresh()) and found.account.refusal is None
    assert (found.other, found.apart, found.other_non_finite) == ("student", 0.0, 0)
    assert found.parameters == {"backbone": 26_592, "head": 2_472}
    assert [part.part for part in found.parts][:4] == ["patch embedding", "class token", "positions", "block 0"]
    assert found.probe is not None and found.probe.features is not None
    assert (found.probe.data, found.probe.features.images, found.probe.draws) == ("builtin:digits", 64, 3)


def test_the_same_twice(run: Path) -> None:
    assert record(inspect_weights(str(run))) == record(inspect_weights(str(run)))


def test_random_collapsed_and_hardly_trained(tmp_path: Path) -> None:
    silent = silenced(with_structure(fresh()))
    start = {name: value + 1e-3 if ".norm" in name else value for name, value in fresh().items()}
    for name, tensors, state in (("a", fresh(), "random"), ("b", silent, "collapsed"), ("c", start, "unclear")):
        assert inspect_weights(str(write_run(tmp_path / name, tensors, tensors))).verdict.state == state


@pytest.mark.parametrize(
    ("objective", "method", "pooling", "answered"),
    [
        ("objective.patch", "DINO", "class token", True),
        ("objective.cls", "Masked image modelling", "mean of the patches", False),
    ],
)
def test_what_a_run_did_not_train_is_not_judged(
    run: Path, objective: str, method: str, pooling: str, answered: bool
) -> None:
    content = torch.load(run / FILE, weights_only=True)
    content["state"]["config"][objective] = "none"
    torch.save(content, run / "part.pt")
    found = inspect_weights(str(run / "part.pt"))
    assert found.probe is not None
    assert (found.origin.method, found.probe.pooling, found.probe.answers is not None) == (method, pooling, answered)


def test_student_and_teacher_apart(tmp_path: Path) -> None:
    teacher = with_structure(fresh())
    student = {name: 1.25 * value for name, value in teacher.items()}
    student["head.mlp.0.bias"] = torch.full((24,), float("nan"))
    run = str(write_run(tmp_path / "run", student, teacher))
    found = inspect_weights(run)
    assert (found.verdict.state, found.other_non_finite) == ("trained", 24)
    assert found.parts[0].distance == pytest.approx(0.25)
    broken = inspect_weights(run, which="student")
    assert (broken.verdict.state, broken.unprobed, broken.signs, broken.apart) == (
        "broken", "its numbers are not finite", None, None,
    )  # fmt: skip


def test_a_file_without_teacher_is_its_student(run: Path) -> None:
    content = torch.load(run / FILE, weights_only=True)
    del content["state"]["teacher"]
    torch.save(content, run / "student.pt")
    found = inspect_weights(str(run / "student.pt"))
    assert (found.origin.which, found.other) == ("student", None)
    with pytest.raises(WeightsError, match="teacher"):
        inspect_weights(str(run / "student.pt"), which="teacher")


def test_missing_tensors_are_described_and_others_named(run: Path) -> None:
    content = torch.load(run / FILE, weights_only=True)
    teacher = content["state"]["teacher"]
    del teacher["backbone.norm.weight"]
    teacher["backbone.cls_token"] = torch.zeros(1, 1, 5)
    teacher["backbone.extra"] = torch.zeros(3)
    torch.save(content, run / "partial.pt")
    found = inspect_weights(str(run / "partial.pt"))
    assert found.verdict.state == "incomplete"
    assert found.account.missing == ("backbone.cls_token", "backbone.norm.weight")
    assert found.account.unexpected == ("backbone.extra",)
    assert found.account.refusal is not None and "backbone.cls_token is [1, 1, 5]" in found.account.refusal
    assert (found.probe, found.unprobed, found.notes) == (None, "tensors are missing", ())


def test_what_is_left_over_alone_does_not_make_weights_incomplete(run: Path) -> None:
    content = torch.load(run / FILE, weights_only=True)
    content["state"]["teacher"]["backbone.extra"] = torch.zeros(3)
    torch.save(content, run / "more.pt")
    found = inspect_weights(str(run / "more.pt"))
    assert (found.verdict.state, found.account.unexpected) == ("trained", ("backbone.extra",))


def test_another_network_stays_an_error(run: Path) -> None:
    content = torch.load(run / FILE, weights_only=True)
    teacher = content["state"]["teacher"]
    content["state"]["teacher"] = {name: value for name, value in teacher.items() if ".blocks." not in name}
    torch.save(content, run / "other.pt")
    with pytest.raises(WeightsError, match="missing"):
        inspect_weights(str(run / "other.pt"))


def test_a_bare_state_dict_with_a_classifier(tmp_path: Path) -> None:
    state = {name.removeprefix("backbone."): value for name, value in fresh().items() if name.startswith("backbone.")}
    torch.save({"state_dict": {**state, "head.weight": torch.zeros(5, 32)}}, tmp_path / "bare.pth")
    found = inspect_weights(str(tmp_path / "bare.pth"), heads=2)
    assert (found.verdict.state, found.head, found.other) == ("random", None, None)
    assert found.account.unused == ("head.weight",)


def test_official_checkpoint() -> None:
    found = inspect_weights("tests/data/golden/ibot_tiny_checkpoint.pth", heads=3)
    assert (found.origin.method, found.origin.networks) == ("iBOT", ("student", "teacher"))
    assert (found.verdict.state, found.verdict.text[:23]) == ("unclear", "Hardly trained: 2 epoch")
    assert found.apart is not None and 0 < found.apart < 1


def test_fine_tuned_run(tmp_path: Path) -> None:
    finetuned_files.write_run(tmp_path / "run")
    found = inspect_weights(str(tmp_path / "run"))
    assert found.classes == ("dark", "light", "odd")
    assert set(found.parameters) == {"backbone", "classifier"}
    assert [part.part for part in found.parts][-2:] == ["final norm", "classifier"]
    assert found.unprobed == "the weights are those of a network before training"
    answers = probe(open_weights(str(tmp_path / "run")).loaded)
    assert isinstance(answers, Probe) and answers.predicted is not None and 1 <= answers.predicted <= 3


def test_without_features_and_with_own_images(run: Path, tmp_path: Path) -> None:
    found = inspect_weights(str(run), features=False)
    assert (found.probe, found.unprobed) == (None, "--no-features")
    assert "not looked at: --no-features" in found.verdict.text
    with pytest.raises(DataError, match="no folder or file"):
        inspect_weights(str(run), data=str(tmp_path / "nothing"))
    own = inspect_weights(str(run), data="builtin:photos")
    assert own.probe is not None and (own.probe.data, own.probe.embedded) == ("builtin:photos", False)


def test_record_is_json_without_nan(run: Path) -> None:
    found = record(inspect_weights(str(run)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {
        "weights", "layout", "path", "method", "networks", "which", "epoch", "step", "run", "parameters",
        "architecture", "head", "classes", "preprocessing", "account", "parts", "apart", "other", "other_non_finite",
        "signs", "probe", "unprobed", "verdict", "weights_hash", "notes", "arguments",
    }  # fmt: skip
    assert set(found["verdict"]) == {"state", "text", "reasons"}
    assert set(found["verdict"]["reasons"][0]) == {"about", "text"}
    assert plain_values({1: (float("nan"), Path("x"), None, True)}) == {"1": [None, "x", None, True]}


def test_methods_that_train_no_class_token_are_judged_by_their_patches(run: Path) -> None:
    loaded = open_weights(str(run)).loaded
    mae = replace(loaded, origin=replace(loaded.origin, method="MAE"), head=None)
    found, expected = probe(mae), probe(replace(loaded, head=None))
    assert isinstance(found, Probe) and isinstance(expected, Probe)
    assert (found.pooling, expected.pooling) == ("mean of the patches", "class token")
    assert found.features != expected.features


def test_images_of_other_channels_are_not_embedded(run: Path) -> None:
    loaded = replace(open_weights(str(run)).loaded, channels=4)
    assert probe(loaded) == "there are no embedded images of 4 channels"

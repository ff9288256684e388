"""Runs that start from weights: measured and saved before the first step, and resumed bit for bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli.errors import RunError, UsageError, WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.train.launch import prepare
from ibot_cli.train.monitor import OnlineKnn
from ibot_cli.train.recipe import settle
from ibot_cli.train.request import Request
from ibot_cli.weights.load import load_weights
from tests.core import tiny
from tests.train import runs
from tests.train.test_start import our_checkpoint

FROZEN = 2 * 5  # two epochs of 42 images in batches of 8
SETS = ("init.freeze_backbone_epochs=2", "optim.layer_decay=0.5")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "a.pt"
    our_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def whole(images: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    runs.pretrain(images, out, *SETS, "train.keep_last=99", init=str(weights))
    return out


def states(out: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for path in checkpoint.paths(out / "checkpoints"):
        found = checkpoint.load(path)
        yield found.step, found.state


def test_the_weights_are_measured_and_saved_before_the_first_step(images: Path, weights: Path, whole: Path) -> None:
    first = runs.metrics(whole)[0]
    loaded = load_weights(str(weights))
    plan = prepare(Request(out=whole, resume=True)).plan
    knn = OnlineKnn(prepare(Request(out=whole, resume=True)).source, plan.config, torch.device("cpu"))
    assert first == {"step": 0, "epochs_done": 0, "knn_accuracy": knn.accuracy(loaded.backbone)}
    step, state = next(states(whole))
    assert step == 0
    for name, value in loaded.backbone.state_dict().items():
        if name != "masked_embed":
            assert torch.equal(state["teacher"][f"backbone.{name}"], value)
            assert torch.equal(state["student"][f"backbone.{name}"], value)


def test_the_backbone_moves_only_after_its_head_had_time(whole: Path) -> None:
    saved = dict(states(whole))
    backbone = [name for name in saved[0]["student"] if name.startswith("backbone.")]
    for step, state in saved.items():
        for network in ("student", "teacher"):
            still = [
                torch.equal(state[network].get(n, saved[0]["student"][n]), saved[0]["student"][n]) for n in backbone
            ]
            assert all(still) == (step <= FROZEN), (step, network)
        assert step == 0 or not torch.equal(
            state["student"]["head.mlp.0.weight"], saved[0]["student"]["head.mlp.0.weight"]
        )
    rates = [record["lr"] for record in runs.metrics(whole) if "lr" in record]
    assert rates[FROZEN - 1] == max(rates) > 0 and rates[FROZEN] == 0  # the warm-up begins when the backbone thaws


def test_what_the_run_notes_about_its_weights(weights: Path, whole: Path) -> None:
    noted = json.loads((whole / "data.json").read_text())["init"]
    assert noted["weights"] == str(weights) and noted["weights_hash"] == load_weights(str(weights)).weights_hash
    assert noted["head"] == "new" and noted["sentences"] == [
        f"checkpoint of ibot pretrain: teacher of {weights}, step 7",
        "head new, because theirs does not fit",
        "mask token kept",
    ]
    assert f"weights: {weights}" in (whole / "config.yaml").read_text()


@pytest.mark.parametrize(
    "step", [pytest.param(2, marks=pytest.mark.slow), 8, pytest.param(10, marks=pytest.mark.slow), 13]
)
def test_killed_and_resumed_without_the_weights(
    images: Path, weights: Path, whole: Path, tmp_path: Path, step: int
) -> None:
    out, copy = tmp_path / "run", tmp_path / "copy.pt"
    copy.write_bytes(weights.read_bytes())

    def work() -> None:
        runs.signal_after(step, signal.SIGKILL)
        runs.pretrain(images, out, *SETS, "train.keep_last=99", init=str(copy))

    assert runs.in_child(work) == -signal.SIGKILL
    copy.unlink()
    runs.pretrain(None, out, resume=True)
    ours, theirs = runs.final_state(out), runs.final_state(whole)
    ours["config"]["init"]["weights"] = str(weights)
    runs.assert_same(ours, theirs)
    assert runs.metrics(out) == runs.metrics(whole)


def test_killed_before_the_first_checkpoint_it_reads_the_weights_again(
    images: Path, weights: Path, whole: Path, tmp_path: Path
) -> None:
    out, copy = tmp_path / "run", tmp_path / "copy.pt"
    copy.write_bytes(weights.read_bytes())

    def work() -> None:
        runs.kill_before_rename(1)
        runs.pretrain(images, out, *SETS, "train.keep_last=99", init=str(copy))

    assert runs.in_child(work) == -signal.SIGKILL
    copy.unlink()
    with pytest.raises(WeightsError, match=r"run has no checkpoint yet and needs .*copy\.pt does not") as e:
        prepare(Request(out=out, resume=True))
    assert e.value.hint == "Put them back, or start a new run."
    our_checkpoint(copy, **{"train.seed": 1})
    with pytest.raises(RunError, match=r"copy\.pt holds other weights than when .* began"):
        prepare(Request(out=out, resume=True))
    copy.write_bytes(weights.read_bytes())
    runs.pretrain(None, out, resume=True)
    assert runs.metrics(out) == runs.metrics(whole)


def test_a_head_that_fits_is_kept_and_nothing_waits(images: Path, weights: Path, tmp_path: Path) -> None:
    sets = ("head.prototypes=12", "train.epochs=1", "monitor.knn_epochs=0", "train.keep_last=99")
    result = runs.pretrain(images, tmp_path / "run", *sets, init=str(weights))
    assert result.start_knn_accuracy is None and result.knn_accuracy is None
    (_, first), *_ = states(tmp_path / "run")
    assert first["config"]["init"]["freeze_backbone_epochs"] == 0
    theirs = checkpoint.load(weights).state
    heads = {name: value for name, value in theirs["teacher"].items() if name.startswith("head.")}
    assert heads and tiny.same(heads, {name: first["student"][name] for name in heads})
    assert torch.equal(first["centers"]["cls"], theirs["centers"]["cls"])
    assert runs.metrics(tmp_path / "run")[0] == {"step": 0, "epochs_done": 0}


def test_the_targets_of_a_new_head_are_judged_when_it_had_time(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr("ibot_cli.train.loop.Watch.look", lambda _, slots: looked.append(slots) or [])
    sets = ("train.epochs=3", "init.freeze_backbone_epochs=2", "monitor.knn_epochs=0")
    runs.pretrain(images, tmp_path / "run", *sets, init=str(weights))
    assert len(looked) == 1


def asked(images: Path, out: Path, *sets: str, **options: Any) -> Any:
    return prepare(Request(data=str(images), sets=[*runs.SMALL, *sets], out=out, preset="ibot_vits16", **options))


def test_refusals(images: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(WeightsError, match="is a web page"):
        asked(images, tmp_path / "run", init=str(tmp_path / "page.pth"))
    with pytest.raises(UsageError, match=r"model\.width = 32 was asked for \(--set\), the weights have 16"):
        asked(images, tmp_path / "run", "model.width=32", init=str(weights))
    four = tmp_path / "four.pth"
    torch.save(tiny.vit(channels=4).state_dict(), four)
    with pytest.raises(WeightsError, match="see images with 4 channels"):
        asked(images, tmp_path / "run", "model.heads=2", init=str(four))
    with pytest.raises(WeightsError, match="does not exist"):
        asked(images, tmp_path / "run", init=str(tmp_path / "nothing.pth"))
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_has_its_weights(images: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"init\.weights: '.*a\.pt' in the run, '.*other\.pt' asked for"):
        prepare(Request(out=whole, resume=True, init=str(tmp_path / "other.pt")))
    assert prepare(Request(out=whole, resume=True, init=str(weights))).beginning is None
    runs.pretrain(images, tmp_path / "run", "train.epochs=1")
    with pytest.raises(RunError, match=r"init\.weights: None in the run, '.*a\.pt' asked for"):
        prepare(Request(out=tmp_path / "run", resume=True, init=str(weights)))


def test_partial_weights_are_taken_when_asked_for(images: Path, weights: Path, tmp_path: Path) -> None:
    content = torch.load(weights, weights_only=True)
    del content["state"]["teacher"]["backbone.blocks.1.mlp.fc2.bias"]
    torch.save(content, tmp_path / "part.pt")
    with pytest.raises(WeightsError, match=r"missing: backbone\.blocks\.1\.mlp\.fc2\.bias"):
        asked(images, tmp_path / "run", init=str(tmp_path / "part.pt"))
    prepared = asked(images, tmp_path / "run", init=str(tmp_path / "part.pt"), partial=True)
    assert prepared.plan.config.init.partial
    assert any("blocks.1.mlp.fc2.bias" in warning for warning in prepared.plan.warnings)


def test_the_recipe_of_embedded_data_becomes_gentler(weights: Path) -> None:
    recipe = settle(Request(data="builtin:digits", init=str(weights)))
    config, chosen = recipe.resolved.config, recipe.choices
    assert (config.optim.lr, config.optim.min_lr) == (4e-4, 1e-5)
    assert config.optim.layer_decay == 0.9 and config.train.epochs == 30 and config.optim.warmup_epochs == 3
    assert config.views.rotation == 15 and config.mask.ratio == (0.4,) and config.objective.teacher_momentum == 0.995
    assert config.model.width == 16 and chosen["model.width"] == (16, "taken from the weights")
    assert config.init.head_lr == 4e-3 and config.optim.lr == 4e-4  # a new head is no trained network
    assert "preset ibot_continue" in chosen["optim.lr"][1] and "head.prototypes" in chosen
    said = settle(Request(init=str(weights), sets=["train.epochs=50", "optim.lr=1e-3"]))
    optim = said.resolved.config.optim
    assert said.resolved.config.train.epochs == 50 and (optim.lr, optim.warmup_epochs) == (1e-3, 5)
    assert not {"optim.lr", "train.epochs"} & said.choices.keys()


def test_a_folder_gets_the_preset_for_continued_training(images: Path, weights: Path) -> None:
    recipe = settle(Request(data=str(images), init=str(weights)))
    config, chosen = recipe.resolved.config, recipe.choices
    assert recipe.resolved.origin["objective.teacher_momentum"] == "preset ibot_continue"
    assert config.optim.layer_decay == 0.9 and config.objective.balance == "sinkhorn"
    assert (config.optim.lr, config.init.head_lr) == (5e-5, 5e-4)
    assert config.train.epochs == 200 and config.head.prototypes == 12  # those of the head, not of the 42 images
    assert "train.epochs" in chosen and chosen["head.prototypes"] == (12, "taken from the weights' head")
    assert chosen["init.freeze_backbone_epochs"] == (0, "the head comes with the weights")
    assert chosen["data.channels"] == (1, "as many as the weights see")
    assert config.views.global_size == 16 and recipe.reference_epochs == 200


def test_the_preset_for_continued_training_wants_weights(images: Path, tmp_path: Path) -> None:
    sets = [text for text in runs.SMALL if not text.startswith("optim.")]
    request = Request(data=str(images), preset="ibot_continue", sets=sets, out=tmp_path / "run")
    assert prepare(request).plan.warnings == [
        "The preset ibot_continue is for trained weights, and none are named; add --init WEIGHTS."
    ]

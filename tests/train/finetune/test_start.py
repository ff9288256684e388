"""What a fine-tuning keeps of its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import from_mapping
from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.classifier import kept_projection
from ibot_cli.errors import UsageError
from ibot_cli.train.finetune.start import Start, starting_classifier
from ibot_cli.weights.load import LoadedBackbone, load_weights
from ibot_cli.weights.trainable import trainable
from tests.train.finetune import tuned
from tests.weights.finetuned_files import write_run

CLASSES = ("dark", "light", "odd")
PIXELS = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def begin(loaded: LoadedBackbone, classes: tuple[str, ...] = CLASSES, **model: object) -> Start:
    config = from_mapping({"model": model, "train": {"seed": 3}}, "test", FinetuneConfig)
    return starting_classifier(loaded, trainable(loaded), config, classes)


@pytest.fixture
def teacher(tmp_path: Path) -> LoadedBackbone:
    return load_weights(str(tuned.pretrained(tmp_path / "pretrained")))


def test_class_token_of_the_teacher(teacher: LoadedBackbone) -> None:
    start = begin(teacher, pooling="cls")
    with torch.no_grad():
        torch.testing.assert_close(start.model.eval().features(PIXELS), teacher.backbone(PIXELS)[:, 0])
    assert start.head == "new"
    assert start.sentences == ("kept: the backbone with its final norm", "new: the classifier of 3 classes")


def test_mean_pooling_has_a_new_norm(teacher: LoadedBackbone) -> None:
    start = begin(teacher, pooling="mean")
    model = start.model
    assert torch.equal(model.backbone.blocks[1].mlp.fc1.weight, teacher.backbone.blocks[1].mlp.fc1.weight)
    assert model.fc_norm.weight.eq(1).all() and model.fc_norm.bias.eq(0).all()
    assert start.sentences[1] == "new: the norm of the mean of the patches, in place of the final norm"


def test_what_is_new_depends_on_the_seed_alone(teacher: LoadedBackbone) -> None:
    before = torch.get_rng_state()
    first, second = begin(teacher), begin(teacher)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.model.head.weight, second.model.head.weight)
    assert first.model.head.weight is not second.model.head.weight


def test_from_scratch_is_the_same_network_with_other_weights(teacher: LoadedBackbone) -> None:
    start, again = begin(teacher, from_scratch=True), begin(teacher, from_scratch=True)
    ours, theirs = start.model.backbone.state_dict(), teacher.backbone.state_dict()
    assert start.shape.backbone == teacher.shape
    assert not torch.allclose(ours["blocks.0.attn.qkv.weight"], theirs["blocks.0.attn.qkv.weight"])
    assert torch.equal(ours["pos_embed"], again.model.backbone.pos_embed)
    assert start.sentences == ("all weights are random, seed 3",)


def test_larger_images_resize_positions(teacher: LoadedBackbone) -> None:
    start = begin(teacher, image_size=24)
    assert start.model.backbone.pos_embed.shape == (1, 37, 16) and start.shape.backbone.image_size == 24
    assert start.sentences[0] == "kept: the backbone with its final norm, positions resized from 16 to 24 pixels"
    with pytest.raises(UsageError, match=r"model\.image_size = 18 is no multiple of 4"):
        begin(teacher, image_size=18)


def test_the_first_projection_layer_is_kept(teacher: LoadedBackbone) -> None:
    start = begin(teacher, keep_projection=1)
    projection = kept_projection(teacher.head)
    with torch.no_grad():
        expected = projection(teacher.backbone(PIXELS)[:, 0])
        torch.testing.assert_close(start.model(PIXELS), start.model.head(expected))
    assert start.shape.projection == 12
    assert "kept: the first layer of the projection head, 12 wide" in start.sentences


def test_no_projection_to_keep(tmp_path: Path) -> None:
    backbone = build_backbone(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=192, depth=1, heads=3)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"model\.keep_projection = 1, but .* has no projection head") as caught:
        begin(load_weights(str(tmp_path / "weights.pth")), keep_projection=1)
    assert "model.keep_projection=0" in str(caught.value.hint)


@pytest.mark.parametrize(("pooling", "projection"), [("mean", None), ("cls", None), ("cls", 24)])
def test_equal_class_names_keep_the_classifier(tmp_path: Path, pooling: str, projection: int | None) -> None:
    model = write_run(tmp_path / "run", CLASSES, pooling=pooling, projection=projection)
    start = begin(load_weights(str(tmp_path / "run")), pooling=pooling, keep_projection=int(projection is not None))
    assert start.head == "kept" and start.sentences[-1] == "kept: the classifier of 3 classes, which has the same names"
    with torch.no_grad():
        torch.testing.assert_close(start.model.eval()(PIXELS), model(PIXELS))


def test_other_class_names_replace_the_classifier_and_say_so(tmp_path: Path) -> None:
    model = write_run(tmp_path / "run", CLASSES)
    start = begin(load_weights(str(tmp_path / "run")), ("dark", "light", "strange"), pooling="mean")
    assert start.head == "replaced"
    assert start.sentences[-1] == "replaced: the classifier of 3 classes; the weights had 3 other classes"
    with torch.no_grad():
        torch.testing.assert_close(start.model.features(PIXELS), model.features(PIXELS))
        assert not torch.allclose(start.model.head.weight, model.head.weight)


@pytest.mark.parametrize(
    ("before", "projection", "now"), [("mean", None, "cls"), ("cls", None, "mean"), ("cls", 24, "cls")]
)
def test_another_feature_replaces_the_classifier(tmp_path: Path, before: str, projection: int | None, now: str) -> None:
    write_run(tmp_path / "run", CLASSES, pooling=before, projection=projection)
    start = begin(load_weights(str(tmp_path / "run")), pooling=now)
    assert start.head == "replaced" and "on another feature" in start.sentences[-1]
    if before == "mean":
        assert "new: the final norm; the weights had one for the mean of the patches" in start.sentences
        assert start.model.backbone.norm.weight.eq(1).all()


def test_windows_of_a_swin_that_would_change(tmp_path: Path) -> None:
    swin = build_backbone(arch="swin_tiny", image_size=64, channels=1, window_size=2)
    torch.save(swin.state_dict(), tmp_path / "swin.pth")
    loaded = load_weights(str(tmp_path / "swin.pth"))
    assert begin(loaded, image_size=64).model(torch.rand(1, 1, 64, 64)).shape == (1, 3)
    with pytest.raises(UsageError, match="gives the windows of this Swin another shape") as caught:
        begin(loaded, image_size=32)
    assert caught.value.hint is not None

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from ibot_cli.config.load import flatten, to_yaml
from ibot_cli.config.schema import Config, DataConfig, ModelConfig, ViewsConfig
from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Network
from ibot_cli.errors import WeightsError
from ibot_cli.runs.checkpoint import CheckpointStore
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.weights.load import load_weights, weights_hash

CONFIG = replace(
    Config(),
    data=DataConfig(channels=1, mean=(0.3,), std=(0.4,), eval_crop_ratio=1.0),
    views=ViewsConfig(global_size=16, local_size=8),
    model=ModelConfig(arch="vit_tiny", patch_size=4, width=24, depth=2, heads=2),
)


def network(mask_token: bool) -> Network:
    shape = {"arch": "vit_tiny", "image_size": 16, "channels": 1, "patch_size": 4, "width": 24, "depth": 2, "heads": 2}
    return Network(build_backbone(**shape, mask_token=mask_token), Head(24, 10, hidden_size=12, bottleneck_size=6))


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunDirectory, Network, Network]:
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_config(to_yaml(CONFIG))
    student, teacher = network(True), network(False)
    state = {"config": flatten(CONFIG), "student": student.state_dict(), "teacher": teacher.state_dict()}
    CheckpointStore(directory.checkpoints).save(state, step=12, epoch=1)
    return directory, student, teacher


def test_run_directory(run: tuple[RunDirectory, Network, Network]) -> None:
    directory, student, teacher = run
    loaded = load_weights(str(directory.path))
    assert loaded.weights_hash == weights_hash(teacher.backbone)
    assert (loaded.channels, loaded.image_size, loaded.crop_ratio) == (1, 16, 1.0)
    assert (loaded.mean, loaded.std) == ((0.3,), (0.4,))
    assert loaded.views == CONFIG.views
    assert loaded.description == f"teacher of {directory.path}/checkpoints/step-00000012.pt, step 12"
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.backbone(images), teacher.backbone.eval()(images))
    assert load_weights(str(directory.path), which="student").weights_hash == weights_hash(student.backbone)


def test_checkpoint_file_of_ours(run: tuple[RunDirectory, Network, Network]) -> None:
    directory, _, teacher = run
    loaded = load_weights(str(directory.checkpoints / "step-00000012.pt"))
    assert loaded.weights_hash == weights_hash(teacher.backbone)
    assert loaded.head is not None


def test_nested_configuration_with_automatic_values(tmp_path: Path) -> None:
    config = replace(CONFIG, data=DataConfig(channels=1))
    teacher = network(False)
    state = {"config": yaml.safe_load(to_yaml(config)), "teacher": teacher.state_dict()}
    loaded = load_weights(str(CheckpointStore(tmp_path).save(state, step=1, epoch=0)))
    assert loaded.weights_hash == weights_hash(teacher.backbone)
    assert (loaded.mean, loaded.std, loaded.crop_ratio) == ((0.449,), (0.226,), 0.875)


def test_unreadable_newest_checkpoint_is_noted(run: tuple[RunDirectory, Network, Network]) -> None:
    directory, *_ = run
    (directory.checkpoints / "step-00000099.pt").write_bytes(b"half")
    loaded = load_weights(str(directory.path))
    assert any("step-00000099.pt" in note and "step 12" in note for note in loaded.notes)


def test_run_without_checkpoint(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path).write_config(to_yaml(CONFIG))
    with pytest.raises(WeightsError, match="has no checkpoint yet"):
        load_weights(str(tmp_path))


def test_checkpoint_without_networks(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save({"config": flatten(CONFIG)}, step=1, epoch=0)
    with pytest.raises(WeightsError, match="has neither a student nor a teacher"):
        load_weights(str(path))


def test_a_student_without_teacher(tmp_path: Path) -> None:
    state = {"config": flatten(CONFIG), "student": network(True).state_dict()}
    path = CheckpointStore(tmp_path).save(state, step=1, epoch=0)
    with pytest.raises(WeightsError, match=rf"{path} has no teacher, only the student") as caught:
        load_weights(str(path))
    assert caught.value.hint == "Ask for it with --which student."
    assert load_weights(str(path), which="student").origin.networks == ("student",)


def test_checkpoint_without_configuration(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save({"teacher": network(False).state_dict()}, step=1, epoch=0)
    with pytest.raises(WeightsError, match="has no configuration") as caught:
        load_weights(str(path))
    assert caught.value.hint == "Use a checkpoint of `ibot pretrain` or `ibot finetune`."


def test_what_a_checkpoint_says_about_itself(run: tuple[RunDirectory, Network, Network]) -> None:
    directory, student, _ = run
    with torch.no_grad():
        student.backbone.masked_embed.fill_(0.5)
    state = {"config": flatten(CONFIG), "student": student.state_dict(), "teacher": network(False).state_dict()}
    CheckpointStore(directory.checkpoints).save(state, step=20, epoch=2)
    for which in ("teacher", "student"):
        loaded = load_weights(str(directory.path), which=which)
        assert torch.equal(loaded.mask_token, torch.full((1, 24), 0.5))  # the teacher has none of its own
        origin = loaded.origin
        assert (origin.layout, origin.method) == ("checkpoint of ibot pretrain", "iBOT")
        assert (origin.networks, origin.which) == (("student", "teacher"), which)
        assert (origin.step, origin.epoch, origin.config, origin.run) == (20, 2, CONFIG, directory.path)


@pytest.mark.parametrize("moved", [False, True])
def test_a_folder_of_checkpoints(run: tuple[RunDirectory, Network, Network], tmp_path: Path, moved: bool) -> None:
    directory, _, teacher = run
    folder = directory.checkpoints.rename(tmp_path / "moved") if moved else directory.checkpoints
    loaded = load_weights(str(folder))
    assert loaded.weights_hash == weights_hash(teacher.backbone)
    assert loaded.origin.run == (None if moved else directory.path)


def test_rebuild_makes_the_same_network_with_other_weights(run: tuple[RunDirectory, Network, Network]) -> None:
    loaded = load_weights(str(run[0].path))
    fresh = loaded.rebuild()
    assert fresh.state_dict().keys() == loaded.backbone.state_dict().keys()
    assert weights_hash(fresh) != loaded.weights_hash


def test_loading_leaves_the_global_generator_alone(run: tuple[RunDirectory, Network, Network]) -> None:
    before = torch.get_rng_state()
    load_weights(str(run[0].path))
    assert torch.equal(torch.get_rng_state(), before)


def test_hash_sees_one_changed_value() -> None:
    module = network(False).backbone
    before = weights_hash(module)
    with torch.no_grad():
        module.norm.bias[0] += 1e-6
    assert weights_hash(module) != before

import pytest

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.kinds import KINDS, Kind
from ibot_cli.config.load import resolve
from ibot_cli.config.settings import settings
from ibot_cli.errors import ConfigError

SWIN = ["model.arch=swin_tiny", "model.patch_size=4"]


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (
            ["views.global_size=225"],
            "views.global_size = 225 (--set): must be a multiple of model.patch_size = 16, for example 224",
        ),
        (["views.local_size=100"], "views.local_size = 100 (--set): must be a multiple of model.patch_size = 16"),
        (["model.patch_size=5"], "views.global_size = 224 (default): must be a multiple of model.patch_size = 5"),
        ([*SWIN, "views.local_size=88"], "must be a multiple of 32, the stride of a Swin, for example 96"),
        (["model.arch=swin_base"], "model.patch_size = 16 (default): a Swin always has patches of 4 pixels"),
        ([*SWIN, "model.width=96"], "model.width = 96 (--set): shapes a ViT only"),
        ([*SWIN, "model.depth=4"], "model.depth = 4 (--set): shapes a ViT only"),
        ([*SWIN, "model.heads=4"], "model.heads = 4 (--set): shapes a ViT only"),
        ([*SWIN, "model.registers=4"], "model.registers = 4 (--set): are tokens of a ViT; a Swin has none"),
        ([*SWIN, "model.layer_scale=0.1"], "model.layer_scale = 0.1 (--set): belongs to the blocks of a ViT"),
        (["head.separate_mlp=true"], "head.separate_mlp = true (--set): needs prototypes of the patches' own"),
        (["model.heads=5"], "model.heads = 5 (--set): 5 heads do not divide a width of 384"),
        (["model.width=100"], "model.width = 100 (--set): 6 heads do not divide a width of 100"),
        (["mask.ratio=0.3"], "mask.ratio_var = [0.0, 0.2] (default): has 2 entries; give one, or 1 as mask.ratio has"),
        (["mask.ratio_var=0.2"], "mask.ratio_var = [0.2] (--set): 0 - 0.2 is below 0"),
        (["mask.ratio=0,0.9"], "mask.ratio_var = [0.0, 0.2] (default): 0.9 + 0.2 is above 1"),
        (["mask.ratio=0,0", "mask.ratio_var=0"], "mask.ratio = [0.0, 0.0] (--set): masks nothing"),
        (["objective.cls=none", "objective.patch=none"], "objective.cls = none (--set): objective.cls and"),
        (["views.num_global=1", "views.num_local=0"], "views.num_global = 1 (--set): the class token is compared"),
        (["views.global_scale=1,0.5"], "views.global_scale = [1.0, 0.5] (--set): the first number is the low end"),
        (["views.local_scale=0.5,0.1"], "views.local_scale = [0.5, 0.1] (--set): the first number is the low end"),
        (["views.aspect=2,1"], "views.aspect = [2.0, 1.0] (--set): the first number is the low end"),
        (["views.blur_radius=2,1"], "views.blur_radius = [2.0, 1.0] (--set): the first number is the low end"),
        (["data.mean=0.5"], "data.mean = [0.5] (--set): has 1 entries, but data.channels = 3; give 3, or auto"),
        (["data.channels=1", "data.std=0.2,0.2,0.2"], "data.std = [0.2, 0.2, 0.2] (--set): has 3 entries"),
        (
            ["train.batch_size=8", "train.micro_batch_size=16"],
            "train.micro_batch_size = 16 (--set): must be at most train.batch_size = 8",
        ),
        (["optim.lr=1e-7"], "optim.min_lr = 1.0e-06 (default): is above the peak of 4e-07"),
        (["init.freeze_backbone_epochs=2"], "init.freeze_backbone_epochs = 2 (--set): random weights would stay"),
        (["init.partial=true"], "init.partial = true (--set): there are no weights of which a part could be taken"),
        (["runtime.device=gpu"], "runtime.device = gpu (--set): must be cpu, cuda, cuda:N or auto"),
    ],
)
def test_settings_that_do_not_go_together(sets: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(preset=None, file=None, sets=sets)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "sets",
    [
        ["views.num_local=0", "views.local_size=7"],
        ["init.weights=a.pth", "init.freeze_backbone_epochs=2", "init.partial=true"],
        ["init.freeze_backbone_epochs=0"],
        ["objective.cls=none", "views.num_global=1", "views.num_local=0"],
        ["mask.ratio=0.3", "mask.ratio_var=0.3"],
        ["mask.ratio=0.7", "mask.ratio_var=0.3"],
        ["mask.ratio=0.3,0.5", "mask.ratio_var=0.1"],
        ["objective.patch=none", "mask.ratio=0", "mask.ratio_var=0"],
        ["model.width=96", "model.heads=3", "model.depth=3"],
        ["train.batch_size=auto", "train.micro_batch_size=4096", "optim.lr=1e-7"],
        ["data.channels=1", "data.mean=0.5", "data.std=0.5"],
        ["runtime.device=cuda:1"],
        [*SWIN, "model.window_size=14"],
        ["model.registers=4"],
    ],
)
def test_settings_that_do(sets: list[str]) -> None:
    resolve(preset=None, file=None, sets=sets)


def test_one_mistake_is_told_once() -> None:
    with pytest.raises(ConfigError, match=r"^1 problem in the configuration"):
        resolve(preset=None, file=None, sets=["views.local_size=abc", "model.patch_size=16"])
    with pytest.raises(ConfigError, match=r"^1 problem in the configuration"):
        resolve(preset=None, file=None, sets=["model.patchsize=8", "views.local_size=40"])
    with pytest.raises(ConfigError, match=r"^1 problem in the configuration"):
        resolve(preset="digts", file=None, sets=["views.global_size=20"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_checks_read_settings_that_exist(kind: Kind) -> None:
    assert {path for check in kind.checks for path in check.reads} <= set(settings(kind.root))


AUTO_AUGMENT = "must be none, or rand with parts of m9"


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["augment.auto_augment=rnd-m9"], f"augment.auto_augment = rnd-m9 (--set): {AUTO_AUGMENT}"),
        (["augment.auto_augment=rand-m9-q3"], AUTO_AUGMENT),
        (["augment.auto_augment=rand-m1.5"], AUTO_AUGMENT),
        (["augment.auto_augment=rand-"], AUTO_AUGMENT),
        (["labels.fraction=0.1", "labels.per_class=3"], "labels.per_class = 3 (--set): labels.fraction says another"),
        (["model.keep_projection=1", "model.pooling=mean"], "model.keep_projection = 1 (--set): the projection head"),
        (["model.keep_projection=1", "model.from_scratch=true"], "model.from_scratch leaves no pre-trained layer"),
        (["augment.crop_scale=1,0.5"], "the first number is the low end"),
        (["augment.crop_aspect=2,1"], "the first number is the low end"),
        (["data.channels=1", "data.mean=0.5,0.5,0.5"], "data.mean = [0.5, 0.5, 0.5] (--set): has 3 entries"),
        (["train.micro_batch_size=2048"], "train.micro_batch_size = 2048 (--set): must be at most train.batch_size"),
        (["optim.min_lr=1e-3", "train.batch_size=128"], "is above the peak of 0.0005, which is optim.lr x train.batch"),
        (["optim.min_lr=1e-2", "optim.lr_batch_size=0"], "is above the peak of 0.004, which is optim.lr"),
        (["runtime.device=gpu"], "runtime.device = gpu (--set): must be cpu, cuda, cuda:N or auto"),
    ],
)
def test_settings_of_fine_tuning_that_do_not_go_together(sets: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(root=FinetuneConfig, preset=None, file=None, sets=sets)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("1 problem")


@pytest.mark.parametrize(
    "sets",
    [
        ["augment.auto_augment=none"],
        ["augment.auto_augment=rand-m5-n3-mstd0.5-mmax10-p0.5-inc1-tweights"],
        ["data.mean=0.5"],
        ["data.channels=1", "data.mean=0.5", "data.std=0.5"],
        ["labels.per_class=3"],
        ["optim.min_lr=1e-3", "train.batch_size=128", "optim.lr_batch_size=0"],
        ["train.batch_size=128", "train.micro_batch_size=128"],
    ],
)
def test_settings_of_fine_tuning_that_do(sets: list[str]) -> None:
    resolve(root=FinetuneConfig, preset=None, file=None, sets=sets)

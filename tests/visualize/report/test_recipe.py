from pathlib import Path

from ibot_cli.visualize.report.recipe import recipe_of
from ibot_cli.visualize.report.record import read_run
from tests.visualize.report.runs import finetune_run, pretrain_run, rewrite


def changes(path: Path) -> dict[str, tuple[object, object, str]]:
    recipe = recipe_of(read_run(path))
    assert recipe is not None
    return {each.path: (each.preset, each.value, each.source) for each in recipe.changes}


def test_the_demo_and_what_was_set(tmp_path: Path) -> None:
    command = ("ibot", "pretrain", "--set", "train.epochs=6", "--set=optim.lr=0.002", "--device", "cpu", "--resume")
    path = pretrain_run(
        tmp_path / "run", sets=("optim.lr=0.002", "model.depth=2", "runtime.device=cpu"), command=command
    )
    recipe = recipe_of(read_run(path))
    assert recipe is not None and (recipe.preset, recipe.why) == ("digits", "made for these images")
    assert changes(path) == {
        "model.depth": (3, 2, "decided when the run began"),
        "optim.lr": (0.004, 0.002, "--set"),
        "runtime.device": (None, "cpu", "--device"),
        "train.epochs": (120, 6, "--set"),
    }


def test_a_preset_that_was_named_and_a_file(tmp_path: Path) -> None:
    settings = tmp_path / "mine.yaml"
    settings.write_text("optim: {lr: 0.002}")
    command = ("ibot", "pretrain", "photos", "--preset=digits", "--config", str(settings), "--set", "train.epochs=6")
    path = pretrain_run(tmp_path / "run", sets=("optim.lr=0.002",), command=command, data="/photos")
    recipe = recipe_of(read_run(path))
    assert recipe is not None and (recipe.preset, recipe.why) == ("digits", "named with --preset")
    assert changes(path)["optim.lr"] == (0.004, 0.002, f"file {settings}")
    settings.unlink()
    assert changes(path)["optim.lr"] == (0.004, 0.002, "decided when the run began"), "the file is gone"


def test_choices_for_the_size_of_a_set_have_their_reasons(tmp_path: Path) -> None:
    command = ("ibot", "pretrain", "photos", "--set", "train.epochs=6")
    path = pretrain_run(tmp_path / "run", command=command, data="/photos", num_images=1437)
    recipe = recipe_of(read_run(path))
    assert recipe is not None and recipe.preset == "ibot_vits16"
    found = changes(path)
    assert found["objective.balance"][2].startswith("with fewer than 50,000 images")
    assert found["head.prototypes"][2].startswith("1,437 images: about 16 images per prototype")
    assert found["model.arch"] == ("vit_small", "vit_tiny", "decided when the run began")


def test_what_is_not_known(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    rewrite(path / "env.json", command=["python", "-c", "..."])
    recipe = recipe_of(read_run(path))
    assert (
        recipe is not None and recipe.preset is None and "env.json does not say" in recipe.why and recipe.changes == ()
    )
    rewrite(path / "env.json", command=["ibot", "pretrain", "--preset", "lost"])
    recipe = recipe_of(read_run(path))
    assert recipe is not None and recipe.why == "The preset lost is not one of this version."
    (path / "config.yaml").write_text("model: 3")
    assert recipe_of(read_run(path)) is None


def test_fine_tuning(tmp_path: Path) -> None:
    path = finetune_run(tmp_path / "run")
    recipe = recipe_of(read_run(path))
    assert recipe is not None and recipe.preset == "finetune_digits"
    rewrite(path / "data.json", data="/photos")
    recipe = recipe_of(read_run(path))
    assert recipe is not None and recipe.preset == "finetune_small"
    rewrite(path / "data.json", num_images=60_000)
    recipe = recipe_of(read_run(path))
    assert recipe is not None and recipe.preset is None and "depends on the network" in recipe.why


def test_a_run_from_weights_has_the_preset_and_the_choices_for_that(tmp_path: Path) -> None:
    command = ("ibot", "pretrain", "photos", "--init", "a.pth", "--set", "train.epochs=6")
    weights = {"weights": "/there/a.pth", "description": "teacher of a.pth"}
    sets = ("init.weights=/there/a.pth", "optim.warmup_epochs=1")
    path = pretrain_run(tmp_path / "run", sets=sets, command=command, data="/photos", num_images=1437, init=weights)
    recipe = recipe_of(read_run(path))
    assert recipe is not None
    assert (recipe.preset, recipe.why) == ("ibot_continue", "what `ibot pretrain` begins with from weights")
    found = changes(path)
    assert found["init.weights"] == (None, "/there/a.pth", "--init")
    assert found["optim.warmup_epochs"][2].startswith("a tenth of 6 epochs")

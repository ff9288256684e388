import json

from typer.testing import CliRunner

from ibot_cli.cli import app
from ibot_cli.config import presets


def output(*args: str) -> str:
    result = CliRunner().invoke(app, ["presets", *args], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout


def test_list() -> None:
    text = output("list")
    for name in presets.names():
        assert f"\n{name} " in text
    entries = json.loads(output("list", "--json"))
    assert [entry["name"] for entry in entries] == presets.names()
    assert {entry["kind"] for entry in entries} == {"pretrain", "finetune"}


def test_show_a_recipe_for_fine_tuning() -> None:
    text = output("show", "finetune_vitb16")
    assert "For `ibot finetune`." in text
    assert "optim.layer_decay = 0.65\n" in text
    assert "optim.lr = 0.004\n" in text and "    assumed: The README says to sweep it" in text
    shown = json.loads(output("show", "finetune_vitb16", "--all", "--json"))
    assert shown["kind"] == "finetune" and shown["values"]["labels.fraction"]["value"] is None


def test_show_gives_meaning_unit_and_source() -> None:
    text = output("show", "ibot_vitb16")
    assert "train.epochs = 400 epochs\n    Passes over the images.\n    default: 800\n    source: repositories" in text
    assert "optim.min_lr = 2e-06\n" in text
    assert "train.batch_size = 1024\n" in text
    assert "    assumed: Images per GPU are not published" in text
    assert "optim.betas" not in text


def test_show_all_gives_every_setting_and_what_it_allows() -> None:
    text = output("show", "ibot_vitb16", "--all")
    assert "optim.betas = [0.9, 0.999]\n    AdamW momenta.\n    allowed: 2 numbers, each >= 0 and <= 0.99999\n" in text


def test_show_json() -> None:
    shown = json.loads(output("show", "ibot_swint14", "--json"))
    assert shown["name"] == "ibot_swint14"
    assert set(shown["values"]) == set(presets.load("ibot_swint14").values)
    assert shown["values"]["train.batch_size"] == {
        "value": 1040,
        "default": 1024,
        "help": "Images per update, over all processes and accumulation.",
        "unit": "",
        "allowed": "a whole number >= 1, or auto",
        "source": "README of bytedance/ibot: 26 images on each of 40 GPUs",
        "unknown": None,
    }


def test_diff_shows_only_what_differs_side_by_side() -> None:
    lines = [line.split() for line in output("diff", "ibot_swint7", "ibot_swint14").splitlines()]
    assert lines[0] == ["Setting", "ibot_swint7", "ibot_swint14"]
    assert lines[2:] == [["model.window_size", "7", "14"], ["train.batch_size", "1024", "1040"]]


def test_diff_json() -> None:
    found = json.loads(output("diff", "ibot_swint7", "ibot_swint14", "--json"))
    assert found == {
        "a": "ibot_swint7",
        "b": "ibot_swint14",
        "differences": [
            {"path": "model.window_size", "a": 7, "b": 14},
            {"path": "train.batch_size", "a": 1024, "b": 1040},
        ],
    }


def test_diff_of_the_same() -> None:
    assert output("diff", "digits", "digits") == "digits and digits set the same values.\n"

"""`ibot inspect` as people type it."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from ibot_cli.config.load import from_mapping
from ibot_cli.core.heads import Head
from tests.commands.conftest import Ibot
from tests.evaluate.inspection.networks import CONFIG, fresh, with_structure, write_run

FILE = "run/checkpoints/step-00000120.pt"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), with_structure(fresh()), with_structure(fresh()))
    return tmp_path


def test_what_people_see(ibot: Ibot) -> None:
    done = ibot("inspect", "run")
    assert (done.code, done.out) == (0, "")
    lines = [" ".join(line.split()) for line in done.err.splitlines()]
    assert lines[0] == "weights run"
    assert "what checkpoint of ibot pretrain" in lines
    assert "network teacher; the file holds student and teacher" in lines
    assert "training iBOT, epoch 3, step 120" in lines
    assert "head 40 prototypes, shared by class token and patches; MLP of 3 layers, 24 wide, bottleneck 16" in lines
    assert "config inside; --config prints it" in lines
    assert lines[3] == "verdict trained: the weights were trained, and different images get different features."
    assert lines.index("looked at what it says") < lines.index("part parameters rms smallest largest student apart")
    assert "The student is 0.0% of the teacher's norm away from it." in lines


def test_a_patch_mlp_of_its_own_is_told(ibot: Ibot) -> None:
    above = Head(32, 40, 20, hidden_size=24, bottleneck_size=16, separate_mlp=True).state_dict()
    state = with_structure(fresh()) | {f"head.{name}": value for name, value in above.items()}
    write_run(Path("apart"), state, state)
    shown = " ".join(ibot("inspect", "apart", "--no-features").err.split())
    assert "head 40 prototypes of class tokens, 20 of patches; an MLP each of 3 layers, 24 wide, bottleneck 16" in shown
    assert json.loads(ibot("inspect", "apart", "--json", "--no-features").out)["head"]["separate_mlp"] is True


def test_json_on_stdout(ibot: Ibot) -> None:
    done = ibot("--quiet", "inspect", "run", "--json", "--no-features")
    found = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert (found["verdict"]["state"], found["method"], found["probe"]) == ("trained", "iBOT", None)
    assert found["architecture"]["nearest"] == "ViT-Ti"


def test_config_is_yaml_on_stdout(ibot: Ibot) -> None:
    done = ibot("inspect", "run", "--config")
    assert (done.code, done.err) == (0, "")
    assert from_mapping(yaml.safe_load(done.out), "stdout") == CONFIG


def test_arguments_of_the_authors_are_yaml(ibot: Ibot, request: pytest.FixtureRequest) -> None:
    golden = request.config.rootpath / "tests/data/golden/ibot_tiny_checkpoint.pth"
    done = ibot("inspect", str(golden), "--config", "--heads", "3")
    assert done.code == 0
    assert yaml.safe_load(done.out)["patch_size"] == 8


def test_no_config_inside(ibot: Ibot) -> None:
    state = {name.removeprefix("backbone."): value for name, value in fresh().items() if name.startswith("backbone.")}
    torch.save(state, "bare.pth")
    done = ibot("inspect", "bare.pth", "--config", "--heads", "2")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: bare.pth holds no configuration.")


def test_incomplete_weights_are_described(ibot: Ibot) -> None:
    content = torch.load(FILE, weights_only=True)
    del content["state"]["teacher"]["backbone.norm.weight"]
    content["state"]["student"]["backbone.norm.bias"][:2] = float("nan")
    torch.save(content, "partial.pt")
    done = ibot("inspect", "partial.pt")
    assert done.code == 0
    assert "verdict incomplete: the file does not hold the whole network" in done.words
    assert "tensors 37 loaded, 1 missing" in done.words and "missing backbone.norm.weight" in done.words
    assert "warning: Other commands load it with --partial only." in done.words
    assert "warning: The student holds 2 numbers that are NaN or infinite." in done.words


def test_of_many_blocks_the_first_and_the_last_are_shown(ibot: Ibot) -> None:
    content = torch.load(FILE, weights_only=True)
    state = content["state"]
    state["config"]["model.depth"] = 12
    for network in (state["student"], state["teacher"]):
        block = {name: value for name, value in network.items() if "blocks.1." in name}
        for index in range(2, 12):
            network.update(
                {name.replace("blocks.1.", f"blocks.{index}."): value.clone() for name, value in block.items()}
            )
    state["teacher"]["backbone.blocks.5.norm1.bias"][0] = float("inf")
    torch.save(content, "deep.pt")
    lines = [line.split() for line in ibot("inspect", "deep.pt").err.splitlines()]
    shown = [line[:3] for line in lines if line[:1] in (["block"], ["..."])]
    assert [line[1] for line in shown] == ["0", "1", "7", "5", "10", "11"]


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (("nothing.pt",), "nothing.pt does not exist.", 1),
        (("page.pth",), "page.pth is a web page, not weights.", 1),
        (("run", "--data", "photos", "--no-features"), "--data and --no-features exclude each other.", 2),
        (("run", "--config", "--json"), "--config prints YAML and looks at no image.", 2),
        (("run", "--data", "nowhere"), "There is no folder or file nowhere.", 1),
    ],
)
def test_refusals(ibot: Ibot, args: tuple[str, ...], message: str, code: int) -> None:
    Path("page.pth").write_text("<!doctype html><html></html>")
    done = ibot("inspect", *args)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error: {message}") and "hint: " in done.err

"""`ibot pretrain` as people type it: real files, real small runs, what the screen says and how it exits."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ibot_cli.runs.directory import RunDirectory
from ibot_cli.train.loop import Loop
from tests.commands.conftest import Ibot
from tests.train import pictures, runs

TINY = """
views: {num_local: 2, global_size: 16, local_size: 8}
model: {arch: vit_tiny, patch_size: 4, width: 16, depth: 1, heads: 2}
head: {hidden_size: 24, bottleneck_size: 8}
monitor: {knn_epochs: 1, knn_k: 3, tensorboard: false}
runtime: {device: cpu, precision: fp32, threads: 1, workers: 0}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working directory with a configuration of a tiny network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def everything(folder: Path) -> dict[str, int]:
    """Names and times of all files below a folder."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.fixture
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Loop, *_: object) -> None:
        raise AssertionError("a step was run")

    monkeypatch.setattr(Loop, "__init__", refuse)
    monkeypatch.setattr(Loop, "train", refuse)


def test_every_problem_is_named_before_torch_is_loaded() -> None:
    report = "import sys; from ibot_cli.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    args = ["pretrain", "--set", "lr=1", "--set", "views.num_lcal=-2", "--preset", "ibot_vist16"]
    done = subprocess.run([sys.executable, "-c", report, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr == (
        "error: 3 problems in the configuration.\n"
        "  - preset ibot_vist16 (--preset): there is no preset of this name; did you mean ibot_vits16?\n"
        "  - lr = 1 (--set): there is no such setting; did you mean optim.lr? It must be a number > 0 and <= 0.1\n"
        "  - views.num_lcal = -2 (--set): there is no such setting; did you mean views.num_local? "
        "It must be a whole number >= 0 and <= 32\n"
        "hint: `ibot presets show ibot_vits16 --all` lists every setting with what it allows.\n"
    )


@pytest.mark.usefixtures("no_step")
def test_dry_run_prints_the_whole_plan_and_touches_nothing(here: Path, ibot: Ibot) -> None:
    bad = pictures.spoil(pictures.mixed(here / "photos", 35), 4)
    before = everything(here)
    done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--dry-run")
    assert done.code == 0
    assert everything(here) == before
    text = done.words
    assert "photos: 39 images, no labels." in text
    assert "Decoded all: 10 RGB, " in text
    assert all(f"5 {mode}" in text for mode in ("L", "P", "RGBA", "CMYK", "I;16"))
    assert "4 of 39 checked files (10.3%) cannot be read and will be replaced:" in text
    assert all(name in text for name in bad)
    assert "800 epochs x 9 steps = 7,200 steps" in text
    assert "2 of 16 px (17 tokens) + 2 of 8 px (5 tokens)" in text
    assert "backbone 4.4 k, head 3.5 k parameters" in text
    assert "cls online, patch online; 256 prototypes, balanced by sinkhorn" in text
    assert "cpu, fp32, 1 thread, 0 loader processes" in text
    assert "GiB at the peak" in text and "GiB available" in text
    assert "train.batch_size 4 39 images: at least 8 updates per epoch (published: 1024)" in text
    assert "train.epochs 800 39 images: 100 passes at ImageNet's size, more on smaller sets, 800 at most" in text
    assert "train.micro_batch_size 4 all 4 images of a process fit into" in text
    assert "model.depth 1 file tiny.yaml" in text
    assert "objective.teacher_temp 0.07 preset ibot_vits16" in text
    assert done.err == "Dry run: nothing was computed and nothing was written. Without --dry-run the run starts.\n"


@pytest.mark.usefixtures("no_step")
def test_dry_run_as_json(here: Path, ibot: Ibot) -> None:
    bad = pictures.spoil(pictures.mixed(here / "photos", 14), 2)
    done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--dry-run", "--json", "--out", "runs/a")
    assert (done.code, done.err) == (0, "")
    plan = json.loads(done.out)
    assert plan["data"] == "photos" and plan["out"] == "runs/a" and not (here / "runs").exists()
    assert plan["images"]["num_images"] == plan["images"]["num_checked"] == 16
    assert sorted(Path(path).name for path in plan["images"]["unreadable"]) == sorted(bad)
    assert (plan["epochs"], plan["steps_per_epoch"], plan["steps"]) == (800, 8, 6400)
    assert plan["batch_size"] == plan["micro_batch_size"] == 2 and plan["micro_batches"] == 1
    assert plan["tokens"] == [17, 5]
    assert plan["memory"]["peak"] > plan["memory"]["base"] > 0 and plan["memory"]["available"] > 0
    assert plan["choices"]["objective.balance"] == {
        "value": "sinkhorn",
        "reason": "with fewer than 50,000 images centring alone tends to collapse to uniform targets",
    }
    assert plan["origin"]["head.prototypes"].startswith("chosen: 16 images: about 16 images per prototype")
    assert plan["config"]["train.epochs"] == 800
    assert [path for path, value in plan["config"].items() if value is None] == ["init.weights"]


@pytest.mark.usefixtures("no_step")
def test_dry_run_of_data_that_a_run_would_refuse(here: Path, ibot: Ibot) -> None:
    pictures.spoil(pictures.mixed(here / "photos", 14), 12)
    done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--dry-run")
    assert done.code == 0
    assert (
        "warning: This run would stop at once: 12 of 26 files cannot be read; a run stops above 10 files and 0.01 of "
        "all. Remove or repair the files, or raise data.max_bad_ratio or data.max_bad_files."
    ) in done.words


def test_a_run_from_start_to_the_next_step(here: Path, ibot: Ibot) -> None:
    bad = pictures.spoil(pictures.mixed(here / "my photos", 14), 2)
    done = ibot("pretrain", "my photos", "--config", "tiny.yaml", "--set", "train.epochs=2", "--out", "runs/a b")
    assert (done.code, done.out) == (0, "")
    lines = done.err.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in epochs] == ["epoch 1", "epoch 2"]
    assert all("cls entropy" in line and "patch entropy" in line and "k-NN" not in line for line in epochs)
    assert lines[-3].startswith("Done: 2 epochs, 16 steps, 0:0") and "peak memory" in lines[-3]
    assert lines[-2] == "warning: 2 unreadable files were replaced; see runs/a b/bad_files.json."
    assert lines[-1].startswith("Next: ibot knn-eval 'runs/a b' FOLDER, where FOLDER holds a sub-folder of images")
    named = json.loads((here / "runs/a b/bad_files.json").read_text())
    assert named["count"] == 2 and {Path(path).name for path in named["files"]} == set(bad)


def test_a_run_with_labels_as_json(here: Path, ibot: Ibot) -> None:
    images = runs.make_images(here / "classes", per_class=6)
    out = here / "run"
    done = ibot("pretrain", images, "--config", "tiny.yaml", "--set", "train.epochs=2", "--out", out, "--json")
    assert done.code == 0
    result = json.loads(done.out)
    assert result["run"] == str(out) and result["data"] == str(images) and result["num_classes"] == 3
    assert (result["first_step"], result["steps"], result["epochs"], result["bad_files"]) == (0, 18, 2, 0)
    assert 0 <= result["knn_accuracy"] <= 1 and result["peak_memory_gib"] > 0
    assert "on held-out training images" in done.err and "NMI" in done.err
    again = ibot("pretrain", "--out", out, "--resume")
    lines = again.err.splitlines()
    assert again.code == 0
    assert lines[-2].startswith("Nothing left to do: the run is complete (2 epochs, 18 steps, k-NN ")
    assert lines[-1] == f"Next: ibot knn-eval {out} {images}"


EARLY: dict[str, tuple[list[str], int, str]] = {
    "no folder": (["phtos"], 1, "There is no folder or file phtos. Did you mean photos?"),
    "empty": (["empty"], 1, "empty holds no files."),
    "no image": (["texts"], 1, "texts holds no image: 1 other files (1 .txt)."),
    "all damaged": (["damaged"], 1, "None of the 2 files looked at in damaged can be read:"),
    "too many damaged": (["half"], 1, "12 of 19 files cannot be read; a run stops above 10 files and 0.01 of all:"),
    "few": (["photos", "--set", "train.batch_size=15"], 1, "14 images do not fill a batch of 15."),
    "micro-batch": (
        ["photos", "--set", "train.batch_size=12", "--set", "train.micro_batch_size=5"],
        2,
        "train.micro_batch_size = 5 does not divide the 12 images of a process per update. "
        "hint: Choose one of 1, 2, 3, 4, 6, 12, or auto.",
    ),
    "micro-batch above the batch": (
        ["photos", "--set", "train.batch_size=4", "--set", "train.micro_batch_size=8"],
        2,
        "train.micro_batch_size = 8 (--set): must be at most train.batch_size = 4",
    ),
    "device": (["photos", "--device", "gpu"], 2, "runtime.device = gpu (--device): must be cpu, cuda, cuda:N or auto"),
    "config": (["photos", "--config", "nothing.yaml"], 2, "file nothing.yaml (--config): there is no such file"),
    "preset": (["photos", "--preset", "ibot_vitb61"], 2, "did you mean ibot_vitb16?"),
}


@pytest.mark.parametrize("case", EARLY)
def test_an_early_error_says_why_and_leaves_nothing_behind(here: Path, ibot: Ibot, case: str) -> None:
    args, code, message = EARLY[case]
    pictures.mixed(here / "photos", 14)
    pictures.spoil(pictures.mixed(here / "half", 7), 12)
    (here / "empty").mkdir()
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("no image")
    (here / "damaged").mkdir()
    pictures.spoil(here / "damaged", 2)
    config = [] if "--config" in args else ["--config", "tiny.yaml"]
    done = ibot("pretrain", *args, *config, "--out", "runs/a")
    assert (done.code, done.out) == (code, "")
    assert f"error: {message}" in done.words or message in done.words
    assert "hint: " in done.err
    assert not (here / "runs").exists()


@pytest.mark.skipif("CUDA_VISIBLE_DEVICES" in os.environ, reason="says what is seen without a GPU")
def test_a_gpu_that_is_not_there(here: Path, ibot: Ibot, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pictures.mixed(here / "photos", 8)
    done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--device", "cuda")
    assert done.code == 2
    assert done.err == (
        "error: runtime.device: 'cuda' was asked for, but PyTorch sees no GPU.\nhint: Use --device cpu.\n"
    )


def test_a_place_that_is_taken(here: Path, ibot: Ibot) -> None:
    pictures.mixed(here / "photos", 8)
    before = everything(here / "photos")
    done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--out", "photos")
    assert done.code == 1
    assert "error: photos is not empty and is not a run." in done.err
    done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--out", "tiny.yaml")
    assert "error: tiny.yaml is a file; a run needs a directory." in done.err
    assert everything(here / "photos") == before


def test_a_run_that_is_in_use(here: Path, ibot: Ibot) -> None:
    pictures.mixed(here / "photos", 8)
    args = ("pretrain", "photos", "--config", "tiny.yaml", "--set", "train.epochs=1", "--out", "run")
    assert ibot(*args).code == 0
    before = everything(here / "run")
    refused = ibot(*args)
    assert refused.code == 1
    assert "error: run already holds a run.\nhint: Continue it with --resume, or choose another --out." in refused.err
    lock = RunDirectory.open(here / "run").lock()
    try:
        done = ibot("pretrain", "--out", "run", "--resume")
    finally:
        lock.release()
    assert done.code == 1
    assert f"error: run is in use by process {os.getpid()} on" in done.err
    del before[str(here / "run" / ".lock")]
    assert before.items() <= everything(here / "run").items()


def test_resuming_without_a_run(ibot: Ibot) -> None:
    done = ibot("pretrain", "--resume")
    assert (done.code, done.err) == (2, "error: --resume needs the run directory.\nhint: Add --out DIR.\n")
    done = ibot("pretrain", "--resume", "--out", "nowhere")
    assert done.code == 1 and "error: nowhere does not exist." in done.err


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, times: int) -> None:
    original = Loop._after_update

    def patched(self: Loop, stop: Any) -> None:
        for _ in range(times if self.step == step else 0):
            signal.raise_signal(signal.SIGINT)
        original(self, stop)

    monkeypatch.setattr(Loop, "_after_update", patched)


def test_interrupted_and_resumed_from_elsewhere(here: Path, ibot: Ibot, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.mixed(here / "photos", 8)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, times=1)
        done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--set", "train.epochs=2", "--out", here / "run")
    assert (done.code, done.out) == (130, "")
    *_, told, stopped, hint = done.err.splitlines()
    assert told.startswith("stopping after this step")
    assert stopped == f"Stopped after step 3 by a signal; everything is saved in {here / 'run'}."
    assert hint == f"Continue with: ibot pretrain --out {here / 'run'} --resume"
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    again = ibot(*shlex.split(hint.partition(": ibot ")[2]))
    assert again.code == 0
    assert "resumed after step 3 of 8" in again.words and "since step 3, peak memory" in again.words


def test_a_second_interruption_stops_at_once(here: Path, ibot: Ibot, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.mixed(here / "photos", 8)
    stop_after(monkeypatch, 3, times=2)
    done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--set", "train.epochs=2", "--out", "run")
    assert done.code == 130
    last = done.err.splitlines()[-1]
    assert last == "Stopped at once. The last checkpoint goes on with: ibot pretrain --out run --resume"


def test_durations_longer_than_the_run_are_scaled_with_a_warning(here: Path, ibot: Ibot) -> None:
    pictures.mixed(here / "photos", 8)
    sets = ("--set", "train.epochs=2", "--set", "train.batch_size=4")
    args = ("pretrain", "photos", "--preset", "ibot_vits16", "--config", "tiny.yaml", *sets)
    done = ibot(*args, "--out", "run")
    assert done.code == 0
    assert "warning: optim.warmup_epochs = 10 epochs is longer than this run allows; scaled to 1." in done.err
    assert "objective.teacher_temp_warmup_epochs = 30 epochs is longer than this run allows; scaled" in done.err
    stored = yaml.safe_load((here / "run/config.yaml").read_text())
    assert stored["optim"]["warmup_epochs"] == 1


def test_without_data_the_digits_are_planned(ibot: Ibot) -> None:
    done = ibot("pretrain", "--dry-run", "--json", "--set", "train.micro_batch_size=32", "--workers", "0")
    plan = json.loads(done.out)
    assert plan["data"] == "builtin:digits" and plan["config"]["data.channels"] == 1
    assert plan["images"]["num_images"] == 1437 and plan["images"]["num_classes"] == 10
    assert plan["origin"]["model.width"] == "preset digits"


def test_nothing_is_coloured_away_from_a_terminal(here: Path, ibot: Ibot) -> None:
    pictures.mixed(here / "photos", 8)
    done = ibot("pretrain", "photos", "--config", "tiny.yaml", "--set", "train.epochs=1", "--out", "run")
    assert "\033" not in done.err


@pytest.fixture
def weights(here: Path) -> str:
    """A run of one epoch, and the images that it saw beside it."""
    runs.make_images(here / "images")
    runs.pretrain("images", Path("first"), "train.epochs=1", "monitor.knn_epochs=0", "train.checkpoint_steps=0")
    return "first"


QUICK = ("--set", "runtime.threads=1", "--set", "runtime.workers=0", "--set", "runtime.precision=fp32")


def test_weights_are_told_in_the_plan_and_measured_first(ibot: Ibot, here: Path, weights: str) -> None:
    sets = ("--set", "train.epochs=1", "--set", "train.batch_size=8", "--set", "views.num_local=1", *QUICK)
    done = ibot("pretrain", "images", "--init", weights, "--out", "second", *sets)
    assert done.code == 0
    assert "start checkpoint of ibot pretrain: teacher of first/checkpoints/step-" in done.words.replace(f"{here}/", "")
    assert "head kept, mask token kept" in done.words
    assert re.search(r"start: k-NN [01]\.\d+ on held-out", done.words)
    assert re.search(r"Done: 1 epoch.* k-NN [01]\.\d+ -> [01]\.\d+ on held-out", done.words)
    records = [json.loads(line) for line in (here / "second" / "metrics.jsonl").read_text().splitlines()]
    assert records[0].keys() == {"step", "epochs_done", "knn_accuracy"} and records[0]["step"] == 0
    assert yaml.safe_load((here / "second" / "config.yaml").read_text())["init"]["weights"] == str(here / "first")


def test_a_dry_run_from_weights(ibot: Ibot, here: Path, weights: str) -> None:
    sets = ("--set", "head.bottleneck_size=5", "--set", "data.channels=3", "--set", "views.global_size=24", *QUICK)
    before = everything(here)
    done = ibot("pretrain", "images", "--init", weights, *sets, "--dry-run", "--json")
    assert done.code == 0 and everything(here) == before
    plan = json.loads(done.out)
    assert plan["init"]["sentences"][1:] == [
        "head new, because theirs does not fit", "mask token kept", "patch embedding 1 -> 3 channels",
        "positions 4x4 -> 6x6",
    ]  # fmt: skip
    frozen = plan["choices"]["init.freeze_backbone_epochs"]
    assert frozen["value"] == plan["config"]["init.freeze_backbone_epochs"] > 0
    words = ibot("pretrain", "images", "--init", weights, *sets, "--dry-run").words
    assert f"only the head learns for {frozen['value']} epochs" in words and "patch embedding 1 -> 3 channels" in words


def test_what_contradicts_the_weights(ibot: Ibot, here: Path, weights: str) -> None:
    done = ibot("pretrain", "images", "--init", weights, "--set", "model.patch_size=8", "--out", "second")
    assert done.code == 2 and not (here / "second").exists()
    assert done.words == (
        "error: The weights decide the network: model.patch_size = 8 was asked for (--set), the weights have 4. "
        "hint: Leave these settings out, or start from other weights."
    )
    done = ibot("pretrain", "images", "--init", "nothing.pth", "--out", "second")
    assert done.code == 1 and "nothing.pth does not exist" in done.words and not (here / "second").exists()
    done = ibot("pretrain", "--out", weights, "--resume", "--init", "nothing.pth")
    assert done.code == 1 and "cannot go on with other settings: init.weights: None in the run" in done.words

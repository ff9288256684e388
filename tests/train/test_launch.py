"""From a request to a run: what is stored, what is refused, and nothing written too early."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ibot_cli import __version__, lock
from ibot_cli.config.load import from_mapping, to_yaml
from ibot_cli.data.sources import open_source
from ibot_cli.errors import ConfigError, DataError, RunError
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.train.launch import Prepared, execute, prepare
from ibot_cli.train.reporter import Silent
from ibot_cli.train.request import Request
from tests.train import pictures, runs


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("data") / "images", per_class=6)


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    request = Request(
        data=str(images), preset="ibot_vits16", sets=[*runs.SMALL, "train.epochs=2"], out=out,
        arguments=["ibot", "pretrain", "x"],
    )  # fmt: skip
    execute(prepare(request), Silent())
    return out


def new(images: Path, out: Path, *sets: str, **options: Any) -> Prepared:
    return prepare(Request(data=str(images), preset="ibot_vits16", sets=[*runs.SMALL, *sets], out=out, **options))


def again(run: Path, *sets: str, **options: Any) -> Prepared:
    return prepare(Request(out=run, resume=True, sets=sets, **options))


def test_preparing_writes_nothing(images: Path, tmp_path: Path) -> None:
    prepared = new(images, tmp_path / "run")
    assert prepared.checkpoint is None and prepared.refusal is None
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_of_a_run_reads_back_exactly(images: Path, finished: Path, tmp_path: Path) -> None:
    text = (finished / "config.yaml").read_text()
    config = from_mapping(yaml.safe_load(text), "run")
    assert config == new(images, tmp_path / "run", "train.epochs=2").plan.config
    assert to_yaml(config) == text
    assert "auto" not in text.replace("  weights: auto", "")


def test_environment_and_data_are_stored(images: Path, finished: Path) -> None:
    environment = json.loads((finished / "env.json").read_text())
    assert environment["ibot"] == __version__ and environment["packages"]["torch"] is not None
    assert environment["command"] == ["ibot", "pretrain", "x"]
    data = json.loads((finished / "data.json").read_text())
    source = open_source(str(images), channels=1)
    assert data["fingerprint"] == source.fingerprint and len(data["fingerprint"]) == 64
    assert data["num_images"] == 18 and data["classes"] == ["class0", "class1", "class2"]


def test_data_are_stored_so_that_they_are_found_from_anywhere(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    prepared = new(Path(images.name), tmp_path / "run", "train.epochs=1")
    result = execute(prepared, Silent())
    assert result.data == images.name
    assert json.loads((tmp_path / "run/data.json").read_text())["data"] == str(images)
    monkeypatch.chdir(tmp_path)
    assert again(tmp_path / "run").data == str(images)


def test_the_default_place_of_a_run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = prepare(Request(data=str(images), sets=runs.SMALL))
    assert prepared.out.parent == Path("runs") and prepared.out.name.startswith("ibot_vits16-2")


def test_more_bad_files_than_accepted_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    pictures.spoil(pictures.mixed(tmp_path / "images", 14), 12)
    prepared = new(tmp_path / "images", tmp_path / "run", "data.channels=3")
    with pytest.raises(DataError, match="12 of 26 files cannot be read; a run stops above 10 files") as refused:
        execute(prepared, Silent())
    assert "text1.jpg" in refused.value.message
    assert not (tmp_path / "run").exists()
    accepted = new(tmp_path / "images", tmp_path / "run", "data.channels=3", "data.max_bad_ratio=0.5")
    assert accepted.refusal is None


def test_a_sample_that_promises_too_many_bad_files_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ibot_cli.data.probe import probe
    from ibot_cli.train import launch

    pictures.spoil(pictures.mixed(tmp_path / "images", 40), 20)
    monkeypatch.setattr(launch, "probe", lambda source: probe(source, limit=20))
    prepared = new(tmp_path / "images", tmp_path / "run", "data.channels=3")
    assert prepared.plan.data.num_checked == 20 and prepared.refusal is None
    warning = prepared.plan.warnings[-1]
    assert warning.startswith("About ") and "of 60 files seem to be unreadable; the run will stop" in warning


def test_somebody_else_began_a_run_there_meanwhile(images: Path, finished: Path, tmp_path: Path) -> None:
    first, second = (new(images, tmp_path / "run", "train.epochs=1", f"train.seed={seed}") for seed in (1, 2))
    execute(first, Silent())
    before = (tmp_path / "run/config.yaml").read_bytes()
    with pytest.raises(RunError, match="already holds a run"):
        execute(second, Silent())
    assert (tmp_path / "run/config.yaml").read_bytes() == before


def test_nothing_is_written_before_the_lock_is_held(images: Path, tmp_path: Path) -> None:
    prepared = new(images, tmp_path / "run")
    held = RunDirectory.create(tmp_path / "run").lock()
    try:
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
            execute(prepared, Silent())
    finally:
        held.release()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "checkpoints", "figures"]


def test_the_lock_is_given_back(finished: Path) -> None:
    lock.FolderLock(finished / ".lock").release()


MAY_CHANGE = (
    "data.max_bad_ratio=0.5", "data.max_bad_files=99", "runtime.device=cpu", "runtime.workers=1", "train.log_every=7",
    "train.checkpoint_steps=9", "train.checkpoint_minutes=9", "train.checkpoint_epochs=9", "train.keep_last=9",
    "train.keep_every_epochs=9", "monitor.tensorboard=true", "runtime.checkpointing=blocks",
    "runtime.compile=on",
)  # fmt: skip


def test_what_may_change_on_resume(finished: Path) -> None:
    prepared = again(finished, *MAY_CHANGE)
    assert prepared.plan.config.train.keep_last == 9 and prepared.plan.warnings == []
    assert again(finished, workers=2).plan.config.runtime.workers == 2


def test_another_micro_batch_on_resume(finished: Path) -> None:
    told = "The run had train.micro_batch_size = 4, now 2; it may not go on exactly."
    assert again(finished, "train.micro_batch_size=2").plan.warnings == [told]


def test_everything_else_is_refused_with_all_paths(finished: Path) -> None:
    changes = ("optim.lr=0.02", "views.num_local=1", "train.epochs=9", "train.seed=2", "train.keep_last=9")
    with pytest.raises(RunError) as refused:
        again(finished, *changes)
    assert refused.value.message == (
        f"{finished} cannot go on with other settings: views.num_local: 2 in the run, 1 asked for; "
        "optim.lr: 0.01 in the run, 0.02 asked for; train.epochs: 2 in the run, 9 asked for; "
        "train.seed: 0 in the run, 2 asked for."
    )
    kept = (
        "Decoder, device, workers, micro-batch, compiling, checkpointing, logging, retention and the limits for "
        "bad files may change."
    )
    assert kept in str(refused.value.hint)


def test_a_typo_on_resume_is_a_configuration_error(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean train\.keep_last"):
        again(finished, "train.kep_last=2")


def test_what_may_keep_a_resumed_run_from_being_exact_is_told(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures.mixed(tmp_path / "images", 8)
    execute(new(folder, tmp_path / "run", "data.channels=3", "train.epochs=1"), Silent())
    assert again(tmp_path / "run").plan.warnings == []
    first = sorted(folder.iterdir())[0]
    os.utime(first, (1, 1))
    monkeypatch.setattr(torch, "__version__", "9.9")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    warnings = again(tmp_path / "run").plan.warnings
    assert warnings[0] == "The images' names, sizes or times changed since the run began; it may not go on exactly."
    assert warnings[1] == "The run used 1 threads, now 7; it may not go on exactly."
    assert "now 9.9; it may not go on exactly." in warnings[2]
    first.unlink()
    with pytest.raises(DataError, match=r"The run saw 8 images; .* has 7"):
        again(tmp_path / "run")


def test_data_that_are_gone_can_be_named_anew(images: Path, tmp_path: Path) -> None:
    folder = pictures.mixed(tmp_path / "images", 8)
    execute(new(folder, tmp_path / "run", "data.channels=3", "train.epochs=1"), Silent())
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="There is no folder or file"):
        again(tmp_path / "run")
    assert again(tmp_path / "run", data=str(moved)).plan.warnings == []
    (tmp_path / "run/data.json").unlink()
    with pytest.raises(RunError, match=r"data\.json cannot be read"):
        again(tmp_path / "run")


def test_a_run_without_a_checkpoint_starts_from_the_beginning(images: Path, tmp_path: Path) -> None:
    execute(new(images, tmp_path / "run", "train.epochs=1"), Silent())
    for path in (tmp_path / "run/checkpoints").iterdir():
        path.unlink()
    before = runs.metrics(tmp_path / "run")
    prepared = again(tmp_path / "run")
    assert prepared.plan.warnings == ["The run has no checkpoint yet; it starts from the beginning."]
    result = execute(prepared, Silent())
    assert result.first_step == 0 and runs.metrics(tmp_path / "run") == before

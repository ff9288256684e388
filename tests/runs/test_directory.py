import json
from pathlib import Path

import pytest

from ibot_cli.errors import RunError
from ibot_cli.runs.directory import RunDirectory, check_can_create, is_run


def make(path: Path) -> RunDirectory:
    run = RunDirectory.create(path)
    run.write_config("train:\n  epochs: 1\n")
    return run


def test_create_makes_the_layout(tmp_path: Path) -> None:
    run = make(tmp_path / "a" / "run")
    run.write_environment({"python": "3"})
    run.write_data({"data": "folder", "fingerprint": "f", "num_images": 3, "notes": []})
    run.write_bad_files({"b.png": "truncated", "a.png": "empty"})
    assert sorted(path.name for path in run.path.iterdir()) == [
        "bad_files.json",
        "checkpoints",
        "config.yaml",
        "data.json",
        "env.json",
        "figures",
    ]
    assert list(json.loads(run.bad_files.read_text())["files"]) == ["a.png", "b.png"]
    assert is_run(run.path)
    assert RunDirectory.open(run.path).config.read_text().startswith("train:")


def test_existing_run_is_refused_with_resume_in_the_hint(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(RunError, match="already holds a run") as caught:
        RunDirectory.create(tmp_path)
    assert caught.value.hint is not None and "--resume" in caught.value.hint


def test_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="is not empty and is not a run") as caught:
        RunDirectory.create(tmp_path)
    assert caught.value.hint is not None and "--out" in caught.value.hint and "--resume" in caught.value.hint


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        RunDirectory.create(tmp_path / "file")
    with pytest.raises(RunError, match="file is a file; a run needs a directory"):
        RunDirectory.create(tmp_path / "file" / "below")


def test_what_a_stopped_start_left_is_taken(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path).lock():
        pass
    RunDirectory.create(tmp_path)


def test_open_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run: it has no config\.yaml"):
        RunDirectory.open(tmp_path)
    with pytest.raises(RunError, match="does not exist"):
        RunDirectory.open(tmp_path / "nothing")


def test_lock_removes_leftovers(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.checkpoints / ".step-00000002.pt.99.tmp").write_bytes(b"half")
    (run.path / ".metrics.jsonl.99.tmp").write_bytes(b"half")
    with run.lock(), pytest.raises(RunError, match="in use"):
        run.lock()
    assert not list(run.path.rglob("*.tmp"))


def test_a_parent_that_is_a_file_and_what_an_early_kill_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="file is a file; a run needs a directory"):
        check_can_create(tmp_path / "file" / "run")
    run = RunDirectory.create(tmp_path / "run")
    run.write_data({"data": "images"})
    run.write_environment({})
    check_can_create(run.path)  # killed before the configuration was written: the place may be taken again
    run.write_config("seed: 0")
    with pytest.raises(RunError, match="already holds a run"):
        check_can_create(run.path)

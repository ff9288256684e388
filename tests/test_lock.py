import os
import signal
import socket
from pathlib import Path

import pytest

from ibot_cli import lock as lock_module
from ibot_cli.errors import RunError
from ibot_cli.lock import FolderLock

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(params=["flock", "existence"])
def any_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "existence":
        monkeypatch.setattr(lock_module, "fcntl", None)
    elif lock_module.fcntl is None:
        pytest.skip("no flock here")
    return request.param


def test_second_user_is_refused_with_the_pid(tmp_path: Path, any_kind: str) -> None:
    with FolderLock(tmp_path / ".lock"), pytest.raises(RunError) as caught:
        FolderLock(tmp_path / ".lock")
    assert f"{tmp_path} is in use by process {os.getpid()} on {socket.gethostname()}" in caught.value.message
    assert caught.value.hint is not None and str(tmp_path / ".lock") in caught.value.hint


def test_released_lock_can_be_taken_again(tmp_path: Path, any_kind: str) -> None:
    first = FolderLock(tmp_path / ".lock")
    first.release()
    first.release()
    with FolderLock(tmp_path / ".lock"):
        pass


@needs_fork
def test_lock_of_a_killed_process_does_not_block(tmp_path: Path, any_kind: str) -> None:
    child = os.fork()
    if child == 0:
        FolderLock(tmp_path / ".lock")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / ".lock").read_text().split()[0] == str(child)
    with FolderLock(tmp_path / ".lock"):
        pass


@needs_fork
def test_surviving_workers_of_a_killed_process_do_not_hold_the_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    started, say_started = os.pipe()
    lock = FolderLock(tmp_path / ".lock")
    worker = os.fork()
    if worker == 0:
        os.close(writing)
        os.write(say_started, b"x")
        lock.release()  # must not touch the parent's lock or somebody's descriptor
        os.read(reading, 1)
        os._exit(0)
    os.read(started, 1)
    with pytest.raises(RunError):
        FolderLock(tmp_path / ".lock")
    os.close(lock._descriptor)  # what a kill does: the file closes without an unlock
    lock_module._held.discard(lock._descriptor)
    lock._descriptor = -1
    try:
        FolderLock(tmp_path / ".lock").release()
    finally:
        os.close(writing)
        os.waitpid(worker, 0)
        for descriptor in (reading, started, say_started):
            os.close(descriptor)


def test_without_flock_a_lock_from_another_host_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "fcntl", None)
    (tmp_path / ".lock").write_text("1 elsewhere\n")
    with pytest.raises(RunError, match="process 1 on elsewhere"):
        FolderLock(tmp_path / ".lock")


def test_file_system_without_flock_uses_existence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if lock_module.fcntl is None:
        pytest.skip("no flock here")

    def unsupported(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(lock_module.fcntl, "flock", unsupported)
    with FolderLock(tmp_path / ".lock"), pytest.raises(RunError, match="in use"):
        FolderLock(tmp_path / ".lock")
    assert not (tmp_path / ".lock").exists()

"""Where an export goes: a new folder, or the form's single file with its card beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ibot_cli.durable import sync_directory, sync_files
from ibot_cli.errors import ExportError, UsageError
from ibot_cli.runs.filled_folder import filled_folder, unfinished_folder
from ibot_cli.weights.export.card import CARD
from ibot_cli.weights.export.form import Form

_SUFFIXES = (".safetensors", ".onnx", ".pt", ".pt2", ".pth", ".bin")


def is_single_file(form: Form, out: Path) -> bool:
    """Whether `out` names the form's one file rather than a folder."""
    return form.file is not None and out.suffix == Path(form.file).suffix


def check_place(form: Form, out: Path) -> None:
    """Refuse a place that is taken.

    Raises:
        UsageError: It is a file, a folder with something in it, or cannot be written; or its own folder is missing.
    """
    if out.suffix in _SUFFIXES and not is_single_file(form, out):
        raise UsageError(f"--out {out} ends in {out.suffix}, which is not the form {form.name}.", _places(form))
    if is_single_file(form, out):
        if not out.parent.is_dir():
            raise UsageError(f"There is no folder {out.parent} for --out.", "Make it first, or choose another place.")
        taken = [path for path in (out, _card_beside(out)) if path.exists()]
        if taken:
            raise UsageError(f"--out {out}: {taken[0]} exists already.", "Remove it first, or choose another name.")
        _check_writable(out)
        return
    for part in (out, *out.parents):
        if part.exists() and not part.is_dir():
            raise UsageError(f"--out {out}: {part} is a file.", _places(form))
    if out.resolve() == Path.cwd():
        raise UsageError(f"--out {out} is the current folder.", "Name a new folder inside it.")
    if os.path.ismount(out):
        raise UsageError(f"--out {out} is the top of a file system.", "Name a new folder inside it.")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"--out {out} is a folder with files in it.", f"{_places(form)} Nothing is overwritten.")
    _check_writable(out)


@contextlib.contextmanager
def filled_place(form: Form, out: Path) -> Iterator[Path]:
    """An empty folder to fill, whose content is moved to `out` when nothing was raised."""
    if not is_single_file(form, out):
        with filled_folder(out, "The export", ExportError, overwrite=False) as folder:
            yield folder
        return
    with unfinished_folder(out, "The export", ExportError) as folder:
        yield folder
        sync_files(folder)
        _move(folder, {str(form.file): out, CARD: _card_beside(out)})
    sync_directory(out.parent)


def _move(folder: Path, targets: Mapping[str, Path]) -> None:
    """All files to their places or, after an interruption, none."""
    others = [path.name for path in folder.iterdir() if path.name not in targets]
    if others:
        raise ExportError(
            f"The export consists of more than one file ({', '.join(others)}).", "Name a folder with --out instead."
        )
    taken = next((target for target in targets.values() if target.exists()), None)
    if taken is not None:
        raise ExportError(f"{taken} was written by another program meanwhile.", "Choose another name.")
    moved: list[Path] = []
    try:
        for name, target in targets.items():
            moved.append(target)
            shutil.move(folder / name, target)
    except BaseException:
        for target in moved:
            target.unlink(missing_ok=True)
        raise


def final_name(form: Form, out: Path, path: Path) -> str:
    """What a file of the temporary folder is called at `out`."""
    if is_single_file(form, out):
        return {str(form.file): out.name, CARD: _card_beside(out).name}.get(path.name, path.name)
    return path.name


def _check_writable(out: Path) -> None:
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: there is no permission to write in {folder}.", "Choose another place.")


def _card_beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.md")


def _places(form: Form) -> str:
    file = "" if form.file is None else f" or a file NAME{Path(form.file).suffix}"
    return f"Name a new or an empty folder{file}."

"""What a resumed run checks against the run that it continues."""

from __future__ import annotations

import shlex
from typing import Any

import torch
import yaml

from ibot_cli.config.load import C, differences
from ibot_cli.config.schema import Config
from ibot_cli.data.sources import Source, known_fingerprint
from ibot_cli.errors import DataError, RunError, WeightsError
from ibot_cli.runs.checkpoint import Checkpoint
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.train.out_of_memory import composed_terms
from ibot_cli.train.start import Beginning, begin, read_start

# What may differ when a run goes on: where and how fast it runs, what is written and how many unreadable files it
# accepts, not what is computed.
MAY_CHANGE = {
    "data.decoder",
    "data.max_bad_ratio",
    "data.max_bad_files",
    "runtime.device",
    "runtime.workers",
    "runtime.compile",
    "runtime.checkpointing",
    "train.micro_batch_size",
    "train.log_every",
    "train.checkpoint_steps",
    "train.checkpoint_minutes",
    "train.checkpoint_epochs",
    "train.keep_last",
    "train.keep_every_epochs",
    "monitor.tensorboard",
}


def refuse_changes(stored: C, asked: C, run: RunDirectory) -> None:
    """Only what `MAY_CHANGE` lists may differ.

    Raises:
        RunError: Something else differs; all of it is listed.
    """
    changed = [entry for entry in differences(stored, asked) if entry[0] not in MAY_CHANGE]
    if changed:
        listed = "; ".join(f"{path}: {old!r} in the run, {new!r} asked for" for path, old, new in changed)
        raise RunError(
            f"{run.path} cannot go on with other settings: {listed}.",
            "Leave them out, or start a new run. "
            "Decoder, device, workers, micro-batch, compiling, checkpointing, logging, retention and the limits for "
            "bad files may change.",
        )


def micro_batch_warnings(stored: C, planned: C) -> list[str]:
    """What another micro-batch than before changes."""
    before, after = stored.train.micro_batch_size, planned.train.micro_batch_size
    if before == after:
        return []
    composed = " and ".join(composed_terms(planned))
    return [
        f"The run had train.micro_batch_size = {before}, now {after}; it may not go on exactly"
        + (f", and what depends on the images of a pass changes: {composed}." if composed else ".")
    ]


def stored_data(run: RunDirectory) -> dict[str, Any]:
    """What the run wrote about its images.

    Raises:
        RunError: The file is missing or broken.
    """
    try:
        content: dict[str, Any] = yaml.safe_load(run.data.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RunError(
            f"{run.data} cannot be read: {error}.", "Name the images again, with --resume and --out DIR."
        ) from error
    return content


def require_task(run: RunDirectory, task: str) -> None:
    """A run goes on with the command that began it.

    Args:
        run: The run.
        task: `pretrain` or `finetune`.

    Raises:
        RunError: Another command began it.
    """
    found = stored_data(run).get("task", "pretrain")
    if found != task:
        raise RunError(
            f"{run.path} is a run of `ibot {found}`, not of `ibot {task}`.",
            f"Continue it with: ibot {found} --out {shlex.quote(str(run.path))} --resume",
        )


def check_number(run: RunDirectory, source: Source) -> None:
    """The data must have as many images as the run saw, or their order would be another.

    Raises:
        DataError: They have not.
    """
    seen = stored_data(run)["num_images"]
    if seen != len(source):
        raise DataError(
            f"The run saw {seen:,} images; {source.name} has {len(source):,}.", "Restore the data, or start a new run."
        )


def begin_again(run: RunDirectory, config: Config) -> Beginning | None:
    """The weights of a run that ended before its first checkpoint; None where it starts from random ones.

    Raises:
        RunError: The weights are not those that it began with.
        WeightsError: They cannot be read any more.
    """
    try:
        start = read_start(config.init, config.model.heads)
    except WeightsError as error:
        raise WeightsError(
            f"{run.path} has no checkpoint yet and needs the weights that it began with: {error.message}",
            "Put them back, or start a new run.",
        ) from error
    if start is None:
        return None
    if start.loaded.weights_hash != stored_data(run).get("init", {}).get("weights_hash"):
        raise RunError(
            f"{start.weights} holds other weights than when {run.path} began, and the run has no checkpoint yet.",
            "Start a new run.",
        )
    return begin(start, config)


def resume_warnings(
    run: RunDirectory, source: Source, device: torch.device, checkpoint: Checkpoint | None
) -> list[str]:
    """What keeps the rest of the run from being bit-identical to an uninterrupted one."""
    stored = stored_data(run)
    warnings = []
    if stored["fingerprint"] != known_fingerprint(source):
        warnings.append("The images' names, sizes or times changed since the run began; it may not go on exactly.")
    if checkpoint is None:
        return [*warnings, "The run has no checkpoint yet; it starts from the beginning."]
    if checkpoint.warning:
        warnings.append(checkpoint.warning)
    threads, version = checkpoint.state["threads"], checkpoint.state["torch"]
    if device.type == "cpu" and threads != torch.get_num_threads():
        warnings.append(f"The run used {threads} threads, now {torch.get_num_threads()}; it may not go on exactly.")
    if version != torch.__version__:
        warnings.append(f"The run used PyTorch {version}, now {torch.__version__}; it may not go on exactly.")
    before = torch.device(checkpoint.state["config"]["runtime"]["device"]).type
    if before != device.type:
        warnings.append(f"The run used a {before} device, now {device.type}; it may not go on exactly.")
    return warnings

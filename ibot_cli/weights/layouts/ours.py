"""Runs and checkpoints of `ibot pretrain` and `ibot finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ibot_cli.config.load import from_mapping
from ibot_cli.data.transform import normalisation
from ibot_cli.errors import WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.runs.directory import is_run
from ibot_cli.weights import finetuned
from ibot_cli.weights.layouts.found import Found, Preparation
from ibot_cli.weights.loaded import Which
from ibot_cli.weights.origin import AbsentNetworkError, Origin
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.teacher_scale import configured_scale

MASK_TOKEN = "backbone.masked_embed"


def matches(content: Mapping[str, Any]) -> bool:
    """Whether a loaded file is a checkpoint of ours."""
    return content.get("kind") == checkpoint.KIND


def read(content: Mapping[str, Any], path: Path, which: Which, heads: int | None) -> Found:
    """The network of a loaded checkpoint file.

    Raises:
        WeightsError: It holds no such network.
        RunError: A newer version of ibot wrote it.
    """
    return read_checkpoint(checkpoint.unpack(content, path), which)


def matches_folder(folder: Path) -> bool:
    """Whether a folder is a run, or the checkpoints of one."""
    return is_run(folder) or bool(checkpoint.paths(folder))


def read_folder(folder: Path, which: Which, heads: int | None) -> Found:
    """The network of the newest checkpoint.

    Raises:
        WeightsError: The run has no checkpoint, or the checkpoint no such network.
        RunError: None of its checkpoints can be read.
    """
    found = checkpoint.latest(folder / "checkpoints" if is_run(folder) else folder)
    if found is None:
        raise WeightsError(f"The run {folder} has no checkpoint yet.", "Continue it with --resume.")
    return read_checkpoint(found, which)


def read_checkpoint(found: checkpoint.Checkpoint, which: Which) -> Found:
    """The network of a checkpoint in memory.

    Raises:
        WeightsError: It holds no such network.
    """
    if finetuned.is_finetuned(found.state):
        return _finetuned(found)
    state = found.state
    if not isinstance(state.get("config"), Mapping):
        raise WeightsError(
            f"{found.path} has no configuration.", "Use a checkpoint of `ibot pretrain` or `ibot finetune`."
        )
    networks = tuple(name for name in ("student", "teacher") if isinstance(state.get(name), Mapping))
    if which not in networks:
        raise AbsentNetworkError(found.path, which, networks)
    config = from_mapping(state["config"], str(found.path))
    tensors: dict[str, Tensor] = state[which]
    mean, std = normalisation(config.data.channels, config.data.mean, config.data.std)
    return Found(
        network=BackboneShape.configured(config, mask_token=MASK_TOKEN in tensors),
        tensors=tensors,
        activation=config.head.activation,
        preparation=Preparation(
            mean=mean,
            std=std,
            image_size=config.views.global_size,
            crop_ratio=config.data.eval_crop_ratio,
            bits=config.data.bits,
        ),
        mask_token=student_mask_token(state),
        scale=configured_scale(config, state.get("centers")),
        views=config.views,
        description=f"{which} of {found.path}, step {found.step}",
        notes=(found.warning,) if found.warning else (),
        origin=Origin(
            layout="checkpoint of ibot pretrain",
            path=str(found.path),
            method=config.objective.method,
            networks=networks,
            which=which,
            epoch=found.epoch,
            step=found.step,
            arguments=state["config"],
            config=config,
            run=_run_of(found.path),
        ),
    )


def student_mask_token(networks: Mapping[str, Any]) -> Tensor | None:
    """`[1, D]`, float32, of the student among named networks, in our names; None where there is none."""
    student = networks.get("student")
    token = student.get(MASK_TOKEN) if isinstance(student, Mapping) else None
    return token.detach().float().reshape(1, -1).clone() if isinstance(token, Tensor) else None


def _finetuned(found: checkpoint.Checkpoint) -> Found:
    parts = finetuned.unpack(found)
    images, config = parts.images, found.state.get("config")
    return Found(
        network=parts.shape,
        tensors=parts.tensors,
        preparation=Preparation(
            mean=images.mean,
            std=images.std,
            image_size=images.image_size,
            crop_ratio=images.crop_ratio,
            bits=images.bits,
        ),
        classes=parts.classes,
        description=f"fine-tuned network of {found.path}, step {found.step}",
        notes=(found.warning,) if found.warning else (),
        origin=Origin(
            layout="checkpoint of ibot finetune",
            path=str(found.path),
            method="supervised",
            epoch=found.epoch,
            step=found.step,
            arguments=config if isinstance(config, Mapping) else {},
            run=_run_of(found.path),
        ),
    )


def _run_of(path: Path) -> Path | None:
    run = path.parent.parent
    return run if path.parent.name == "checkpoints" and is_run(run) else None

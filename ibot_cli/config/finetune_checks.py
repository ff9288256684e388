"""What the settings of fine-tuning must fulfil together; see `ibot_cli.config.checks`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ibot_cli.config.checks import DEVICE, MICRO_BATCH, Check, Finding, Values, per_channel, range_of

# timm's notation for RandAugment, as far as it is offered here.
SECTION = re.compile(r"m\d{1,2}|mstd\d+(\.\d+)?|mmax\d{1,2}|n[1-9]|p(0(\.\d+)?|1(\.0+)?)|inc[01]|tweights")


def _auto_augment(values: Values) -> Iterator[Finding]:
    text = values["augment.auto_augment"]
    policy, *parts = text.split("-")
    if text == "none" or (policy == "rand" and all(SECTION.fullmatch(part) for part in parts)):
        return
    yield (
        "augment.auto_augment",
        "must be none, or rand with parts of m9 (strength), mstd0.5 (its spread), mmax10 (its bound), n2 (operations), "
        "p0.5 (chance of each), inc1 (stronger with m) and tweights (mostly geometric), "
        "for example rand-m9-mstd0.5-inc1",
    )


def _one_choice(values: Values) -> Iterator[Finding]:
    if values["labels.fraction"] is not None and values["labels.per_class"] is not None:
        yield "labels.per_class", "labels.fraction says another number of images; set one of them to auto"


def _projection(values: Values) -> Iterator[Finding]:
    if values["model.keep_projection"] and values["model.pooling"] != "cls":
        yield "model.keep_projection", "the projection head was trained on the class token; set model.pooling=cls"


def _kept_layers(values: Values) -> Iterator[Finding]:
    if values["model.keep_projection"] and values["model.from_scratch"]:
        yield "model.keep_projection", "model.from_scratch leaves no pre-trained layer to keep; set it to 0"


def _lr_end(values: Values) -> Iterator[Finding]:
    of = values["optim.lr_batch_size"]
    peak = values["optim.lr"] * (values["train.batch_size"] / of if of else 1)
    if values["optim.min_lr"] > peak * (1 + 1e-9):
        what = "optim.lr x train.batch_size / optim.lr_batch_size" if of else "optim.lr"
        yield "optim.min_lr", f"is above the peak of {peak:.3g}, which is {what}"


FINETUNE_CHECKS: tuple[Check, ...] = (
    Check(reads=("augment.auto_augment",), find=_auto_augment),
    Check(reads=("labels.fraction", "labels.per_class"), find=_one_choice),
    Check(reads=("model.keep_projection", "model.pooling"), find=_projection),
    Check(reads=("model.keep_projection", "model.from_scratch"), find=_kept_layers),
    *(range_of(path) for path in ("augment.crop_scale", "augment.crop_aspect")),
    *(per_channel(path) for path in ("data.mean", "data.std")),
    MICRO_BATCH,
    Check(reads=("optim.lr", "optim.lr_batch_size", "optim.min_lr", "train.batch_size"), find=_lr_end),
    DEVICE,
)

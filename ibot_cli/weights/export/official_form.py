"""The layout of the authors' checkpoints: all of a pre-training, or the extracted backbone."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibot_cli.core.heads import Head
from ibot_cli.errors import WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.weights.description import KEY, as_text
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.official_arguments import arguments_of, optimizer_of
from ibot_cli.weights.export.official_names import backbone_names, can_be_said, head_names
from ibot_cli.weights.export.safetensors_form import opened_with_ibot
from ibot_cli.weights.export.subject import Reference, Subject
from ibot_cli.weights.files import read_weights_file
from ibot_cli.weights.layer_scale import without_layer_scale
from ibot_cli.weights.loaded import LoadedBackbone
from ibot_cli.weights.teacher_scale import loss_state

FILE = "checkpoint.pth"
_OTHER_FORM = "Export it with --to safetensors."
_OTHER_HEAD = (
    "the batch normalisations of the projection head differ, or patches have an MLP of their own; the authors' head "
    "has one for all its places"
)
_NO_OPTIMIZER: dict[str, Any] = {"state": {}, "param_groups": []}


def check(subject: Subject, options: ExportOptions) -> None:
    """Refuse what the authors' networks cannot hold.

    Raises:
        WeightsError: Other layers than theirs, registers, a network without final norm, or a head asked for whose
            batch normalisations differ or that has two MLPs.
    """
    shape = subject.shape
    if shape is None or shape.registers:
        kind = "registers" if shape is not None else "layers of timm"
        raise WeightsError(f"{subject.loaded.description} has {kind}, which the authors' code has not.", _OTHER_FORM)
    if "norm.weight" not in subject.tensors:
        raise WeightsError(
            f"{subject.loaded.description} was fine-tuned with mean pooling, which took away the final norm that the "
            "authors' backbone has.",
            _OTHER_FORM,
        )
    if subject.head is not None and not can_be_said(subject.head):
        raise WeightsError(f"--with-head: {_OTHER_HEAD}.", f"Leave --with-head out. {_OTHER_FORM}")


def takes_both(teacher: LoadedBackbone, student: LoadedBackbone) -> bool:
    """Whether the heads of a checkpoint that holds both go into the file too."""
    return all(one.head is not None and can_be_said(one.head) for one in (teacher, student))


def write(subject: Subject, folder: Path, options: ExportOptions) -> None:
    """One `torch.save` file, made in memory: on a full disk torch would abort the program."""
    file = io.BytesIO()
    torch.save(_backbone(subject) if options.student is None else _full(subject, options.student), file)
    (folder / FILE).write_bytes(file.getbuffer())


def read_back(folder: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """By our strict reader of the authors' files; both networks where there are two, the teacher computes."""
    from ibot_cli.weights.load import load_weights

    path = str(folder / FILE)
    loaded = load_weights(path, which="teacher")
    if "student" in loaded.origin.networks:
        load_weights(path, which="student")
    return Reference(loaded.backbone, loaded.head, None).eval()


def usage(subject: Subject, path: str) -> str:
    """The lines that read it, as the authors' scripts do and with ours."""
    return "\n".join(
        [
            "# The authors' scripts take it as --pretrained_weights. With torch alone:",
            "import argparse",
            "",
            "import torch",
            "",
            "with torch.serialization.safe_globals([argparse.Namespace]):",
            f"    content = torch.load({path!r})",
            "print(*content)  # teacher, student and more, or state_dict",
            "",
            "# With ibot:",
            *opened_with_ibot(subject, path),
        ]
    )


def notes(subject: Subject, options: ExportOptions) -> tuple[str, ...]:
    """What the file leaves out."""
    if subject.classifier is not None:
        return ("The layout has no place for the classifier: the file holds the fine-tuned backbone.",)
    left_out = options.student is not None and subject.head is None and subject.loaded.head is not None
    optimizer = " The optimiser's state is left out." if options.student is not None else ""
    folded = f"Layer scale, which the authors' code has not, is folded into the layers that it scales.{optimizer}"
    return (
        *((f"The projection heads are left out: {_OTHER_HEAD}.",) if left_out else ()),
        *((folded,) if _is_scaled(subject) else ()),
    )


def _is_scaled(subject: Subject) -> bool:
    return subject.shape is not None and subject.shape.layer_scale > 0


def _backbone(subject: Subject) -> dict[str, Any]:
    """As `extract_backbone_weights.py` of the authors writes it; what is under `ibot` is ours and harms nobody."""
    student = subject.loaded.origin.which == "student"
    folded = without_layer_scale(subject.tensors)
    named = backbone_names(folded, subject.loaded.mask_token if student else None)
    above = {} if subject.head is None else head_names(subject.head)
    state = _plain({**named, **{f"head.{name}": value for name, value in above.items()}})
    return {"state_dict": state, KEY: as_text(subject.describe())}


def _full(subject: Subject, student: LoadedBackbone) -> dict[str, Any]:
    loaded = subject.loaded
    said = read_weights_file(Path(loaded.origin.path))
    head = subject.head
    student_head = student.head if head is not None else None
    student_tensors = student.backbone.state_dict()
    student_tensors.pop("masked_embed", None)
    content = {
        "student": _network(student_tensors, student.mask_token, student_head, "module."),
        "teacher": _network(subject.tensors, None, head, ""),
        "optimizer": _optimizer(said, head) if head is not None and not _is_scaled(subject) else _NO_OPTIMIZER,
        "epoch": loaded.origin.epoch or 0,
        "args": arguments_of(subject, head),
        "ibot_loss": _centers(said, loaded),
    }
    return content


def _network(
    tensors: Mapping[str, Tensor], mask_token: Tensor | None, head: Head | None, prefix: str
) -> dict[str, Tensor]:
    folded = backbone_names(without_layer_scale(tensors), mask_token)
    named = {f"{prefix}backbone.{name}": value for name, value in folded.items()}
    above = {} if head is None else head_names(head)
    return _plain(named | {f"{prefix}head.{name}": value for name, value in above.items()})


def _optimizer(said: Mapping[str, Any], head: Head) -> Any:
    """Of a file of the authors as it is, of ours in the order of their parameters."""
    if said.get("kind") != checkpoint.KIND:
        return said.get("optimizer") or {"state": {}, "param_groups": []}
    state = said["state"]
    return optimizer_of(state["optimizer"], state["student"], shared=head.last_layer2 is None)


def _centers(said: Mapping[str, Any], loaded: LoadedBackbone) -> dict[str, Tensor]:
    held = said["state"].get("centers") or {} if said.get("kind") == checkpoint.KIND else loss_state(said)
    found = {name: held.get(ours, held.get(theirs)) for name, ours, theirs in
             (("center", "cls", "center"), ("center2", "patch", "center2"))}  # fmt: skip
    head = loaded.head
    layers = {} if head is None else {"center": head.last_layer, "center2": head.patch_layer}
    filled = {
        name: value if isinstance(value, Tensor) else torch.zeros(len(layers[name].weight_g))
        for name, value in found.items()
        if isinstance(value, Tensor) or name in layers
    }
    shapes = {"center": (1, -1), "center2": (1, 1, -1)}
    return {name: value.float().reshape(shapes[name]) for name, value in filled.items()}


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share nothing with the network; the same one stays the same."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    places = {name: (value.data_ptr(), value.shape) for name, value in state.items()}
    return {name: copies.setdefault(places[name], value.detach().clone()) for name, value in state.items()}


OFFICIAL = Form(
    name="official",
    title="checkpoint of the authors' code",
    file=FILE,
    extra=None,
    library="ibot",
    check=check,
    write=write,
    read_back=read_back,
    usage=usage,
    notes=notes,
    takes_both=takes_both,
    leaves_out=frozenset({"logits"}),
    resizes=True,
)

"""From a network of torch to an ONNX graph with any number of images per batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ibot_cli.errors import ExportError
from ibot_cli.weights.description import KEY, as_text
from ibot_cli.weights.export.silence import silence
from ibot_cli.weights.export.subject import Subject

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
IR_VERSION = 8
INPUT = "images"


class _InOrder(nn.Module):
    """The outputs of a network that have these names, as a tuple: ONNX names outputs by their place."""

    def __init__(self, network: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(images)
        return tuple(outputs[name] for name in self.names)


def onnx_graph(subject: Subject) -> ModelProto:
    """The network as float32 ONNX: `images` `[batch, C, S, S]`, normalised, to the outputs of `Subject.network`.

    Operator set 18 (with file format 8) is the oldest that torch writes without rewriting the graph: every onnxruntime
    since 1.14 (2023) opens it, as do the web runtimes and TensorRT 10. Outputs without values, such as the patches of a
    network that has none, are left out. The description travels in the metadata.

    Raises:
        ExportError: The network has a layer that ONNX cannot express, or it computes with a fixed number of images.
    """
    names = output_shapes(subject)
    model = _traced(_InOrder(subject.network, names).eval(), _example(subject), names, subject)
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in (*model.graph.input, *model.graph.output)):
        raise ExportError(
            f"{subject.loaded.description} computes with a fixed number of images; the ONNX form takes any number.",
            "Export it with --to safetensors if it is a ViT or Swin, else open it with timm itself.",
        )
    _without_traces(model)
    model.ir_version = IR_VERSION
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, as_text(subject.describe())
    return model


def output_shapes(subject: Subject) -> dict[str, tuple[int, ...]]:
    """Names of the outputs that have values, each with its shape for one image."""
    with torch.no_grad():
        outputs = subject.network(_example(subject))
    return {name: tuple(value.shape[1:]) for name, value in outputs.items() if value.numel()}


def _example(subject: Subject) -> Tensor:
    """Two images, because an example of one makes torch take the batch axis for a constant."""
    return torch.zeros(2, subject.channels, subject.image_size, subject.image_size)


def _traced(network: nn.Module, example: Tensor, names: Iterable[str], subject: Subject) -> ModelProto:
    try:
        # The fused attention kernels give their result with strides that depend on the kernel, and with a batch axis of
        # unknown length torch cannot tell whether reshaping them is possible.
        with silence(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(names),
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                verbose=False,
            )
    except Exception as error:  # torch raises nearly anything about a layer it cannot trace
        raise ExportError(
            f"torch cannot write {subject.loaded.description} as ONNX: {_first_line(error)}",
            "Export it with --to torch-export.",
        ) from error
    assert program is not None  # of dynamo=True
    return program.model_proto


def _without_traces(model: ModelProto) -> None:
    """Drops what the exporter notes at each node (lines and places of source files on this machine), and the shapes of
    weights, which are said twice: quantisation transposes the weights alone."""
    weights = {tensor.name for tensor in model.graph.initializer}
    typed = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(typed)
    model.graph.ClearField("metadata_props")
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
    model.ClearField("metadata_props")
    model.ClearField("doc_string")


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]

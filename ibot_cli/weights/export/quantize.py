"""ONNX weights in fewer bits: float16, and whole numbers of eight bits."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ibot_cli.errors import ExportError
from ibot_cli.weights.export.silence import import_onnxruntime, silence

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

HALF_OPS = frozenset(
    {"MatMul", "Gemm", "Conv", "Add", "Sub", "Mul", "Div", "Erf", "Gelu", "Relu"}
    | {
        "Reshape",
        "Transpose",
        "Slice",
        "Concat",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Pad",
        "Gather",
        "Split",
        "Identity",
    }
)
"""What is computed in float16. Norms, softmax, means and all else stay in float32: squares and sums of activations
exceed the largest float16 (65504) in trained networks."""
INTEGER_OPS = ("MatMul", "Gemm")
_HALF_SUFFIX = ".half"


def half_weights(model: ModelProto) -> ModelProto:
    """A copy with float16 weights and arithmetic; inputs and outputs stay float32.

    onnxruntime computes it on every processor; where there is no float16 arithmetic (most CPUs), in float32.

    Args:
        model: Float32, with the type of every value in the graph, as torch writes it.

    Raises:
        ExportError: A weight is beyond the range of float16.
    """
    import onnx

    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    _Halving(graph).run()
    graph.ClearField("value_info")  # types have changed; readers derive them
    return halved


def integer_weights(model: ModelProto, file: Path) -> None:
    """Write the model with 8-bit matrices, one scale per output channel; activations get theirs as they come.

    Unsigned numbers: products with signed ones saturate on x86 processors without VNNI, so that the same file would
    give other values there. The patch embedding (a convolution) and products of activations stay in float32.

    Source:
        Dynamic quantisation of onnxruntime.
    """
    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = _with_own_gemm_weights(model)
    with silence(logging.WARNING):  # it recommends to optimise the graph first, which onnxruntime does when it opens it
        quantize_dynamic(
            model,
            str(file),
            op_types_to_quantize=list(INTEGER_OPS),
            per_channel=True,
            weight_type=QuantType.QUInt8,
        )


def _with_own_gemm_weights(model: ModelProto) -> ModelProto:
    """A copy in which no weight of a Gemm is used by another node too, as those of a head that sees class tokens and
    patches are: onnxruntime transposes them in place, whoever else reads them."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    for number, node in enumerate(graph.node):
        if node.op_type == "Gemm" and node.input[1] in weights and uses[node.input[1]] > 1:
            own = graph.initializer.add()
            own.CopyFrom(weights[node.input[1]])
            own.name = node.input[1] = f"{own.name}.{number}"
    return copied


class _Halving:
    """Gives float values a float16 twin where one is wanted: `name` is float32, `name.half` float16."""

    def __init__(self, graph: GraphProto) -> None:
        import onnx

        self._onnx, self._graph = onnx, graph
        float32 = onnx.TensorProto.FLOAT
        typed = (*graph.value_info, *graph.input, *graph.output)
        self._weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == float32}
        self._floats = {value.name for value in typed if value.type.tensor_type.elem_type == float32}
        self._floats |= set(self._weights)
        self._made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        """Rewrites the graph in place."""
        graph = self._graph
        for node in list(graph.node):
            self._add(node)
        for output in graph.output:
            self._wanted(output.name, half=False)
        self._replace(graph.node, self._nodes)
        used = {name for node in self._nodes for name in node.input}
        self._replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])

    def _add(self, node: NodeProto) -> None:
        half = node.op_type in HALF_OPS
        copied = self._onnx.NodeProto()
        copied.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name in self._floats:
                copied.input[place] = self._wanted(name, half=half)
        for place, name in enumerate(node.output):
            if name in self._floats and half:
                copied.output[place] = name + _HALF_SUFFIX
        self._nodes.append(copied)
        self._made.update(copied.output)

    def _wanted(self, name: str, *, half: bool) -> str:
        """The name of the value in this type; a conversion is added the first time that it is asked for."""
        wanted, other = (name + _HALF_SUFFIX, name) if half else (name, name + _HALF_SUFFIX)
        if wanted in self._made:
            return wanted
        self._made.add(wanted)
        if half and name in self._weights:
            self._graph.initializer.append(self._half_tensor(name, wanted))
        else:
            kind = self._onnx.TensorProto.FLOAT16 if half else self._onnx.TensorProto.FLOAT
            self._nodes.append(self._onnx.helper.make_node("Cast", [other], [wanted], name=f"to_{wanted}", to=kind))
        return wanted

    def _half_tensor(self, name: str, wanted: str) -> object:
        values = self._onnx.numpy_helper.to_array(self._weights[name])
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.isfinite(halved).all():
            largest = float(np.abs(values).max())
            raise ExportError(
                f"The weights {name} reach {largest:.3g}; float16 ends at 65504.", "Export without --fp16."
            )
        return self._onnx.numpy_helper.from_array(halved, wanted)

    @staticmethod
    def _replace(field: object, content: Iterable[object]) -> None:
        kept = list(content)
        del field[:]  # type: ignore[attr-defined]
        field.extend(kept)  # type: ignore[attr-defined]

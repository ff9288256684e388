"""Fewer bits, on graphs made by hand."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ibot_cli.errors import ExportError
from ibot_cli.weights.export.onnx_form import open_session
from ibot_cli.weights.export.quantize import half_weights, integer_weights

RNG = np.random.default_rng(0)
SIZE = 64


def graph(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], inner: dict[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """From `x` `[batch, SIZE]` to `y`, with the types of what lies between, as torch writes them."""
    rows = ["batch", SIZE]
    made = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, rows)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
        value_info=[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inner.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def computed(model: onnx.ModelProto, folder: Path, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    (y,) = open_session(folder / "model.onnx").run(["y"], {"x": x.astype(np.float32)})
    return np.asarray(y)


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_squares_of_large_activations_do_not_overflow(tmp_path: Path) -> None:
    """The squares that a norm sums are beyond float16; the activations themselves are not."""
    weight = RNG.normal(size=(SIZE, SIZE))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("LayerNormalization", ["a", "one", "zero"], ["y"], axis=-1),
    ]
    model = graph(nodes, {"w": weight, "one": np.ones(SIZE), "zero": np.zeros(SIZE)}, {"a": ("batch", SIZE)})
    x = 400 * RNG.normal(size=(3, SIZE))
    assert np.square(x @ weight).max() > 65504 > np.abs(x @ weight).max()
    halved = half_weights(model)
    found = computed(halved, tmp_path, x)
    np.testing.assert_allclose(found, layer_norm(x @ weight), atol=1e-2)
    types = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    assert types == {"w.half": TensorProto.FLOAT16, "one": TensorProto.FLOAT, "zero": TensorProto.FLOAT}
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT}  # a copy was changed


def test_value_in_both_types_and_output_in_the_middle(tmp_path: Path) -> None:
    """`a` goes into a product and into a softmax; `y` is read by another node too."""
    weight = RNG.normal(size=(SIZE, SIZE)) / 8
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Softmax", ["a"], ["p"], axis=-1),
        helper.make_node("Add", ["a", "p"], ["y"]),
        helper.make_node("Mul", ["y", "w"], ["unread"]),
    ]
    rows = ("batch", SIZE)
    model = graph(nodes, {"w": weight}, {"a": rows, "p": rows, "unread": (SIZE, SIZE)})
    x = RNG.normal(size=(SIZE, SIZE))
    a = x @ weight
    p = np.exp(a) / np.exp(a).sum(-1, keepdims=True)
    halved = half_weights(model)
    np.testing.assert_allclose(computed(halved, tmp_path, x), a + p, atol=1e-2)
    conversions = [(node.input[0], node.output[0]) for node in halved.graph.node if node.op_type == "Cast"]
    assert conversions == [("x", "x.half"), ("a.half", "a"), ("p", "p.half"), ("y.half", "y")]


def test_weight_beyond_float16_is_refused() -> None:
    weight = np.ones((SIZE, SIZE))
    weight[3, 4] = -1e5
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, {})
    with pytest.raises(ExportError, match=r"The weights w reach 1e\+05; float16 ends at 65504") as refused:
        half_weights(model)
    assert refused.value.hint == "Export without --fp16."


def test_each_output_channel_has_its_own_scale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With one scale for all, the small columns would vanish."""
    weight = RNG.normal(size=(SIZE, SIZE)) * np.logspace(-4, 0, SIZE)
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, {})
    x = RNG.normal(size=(20, SIZE))
    with caplog.at_level(logging.WARNING):
        integer_weights(model, tmp_path / "whole.onnx")
    assert not caplog.records and logging.root.manager.disable == 0
    quantized = onnx.load(tmp_path / "whole.onnx")
    found, expected = computed(quantized, tmp_path, x), x @ weight
    relative = np.abs(found - expected).max(0) / np.abs(expected).max(0)
    assert relative.max() < 0.05
    assert {"w_quantized": TensorProto.UINT8}.items() <= {
        t.name: t.data_type for t in quantized.graph.initializer
    }.items()


def test_weight_of_a_gemm_that_a_product_uses_too(tmp_path: Path) -> None:
    """onnxruntime transposes a Gemm's weight in place, also where another node reads it."""
    weight = RNG.normal(size=(SIZE, SIZE)) / 8
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], transB=1),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    model = graph(nodes, {"w": weight, "b": np.ones(SIZE)}, {"a": ("batch", SIZE)})
    x = RNG.normal(size=(20, SIZE))
    integer_weights(model, tmp_path / "whole.onnx")
    found, expected = computed(onnx.load(tmp_path / "whole.onnx"), tmp_path, x), (x @ weight.T + 1) @ weight
    assert np.abs(found - expected).max() / np.abs(expected).max() < 0.05

"""Q/DQ and QLinear models: fused to integers, equal to ONNX Runtime's result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from support.onnx_models import model

from builder_host.expressions import text
from builder_host.importers.onnx import import_onnx
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from builder_host.passes.pipeline import run_passes
from planformat.datatypes import DataType

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
W = RNG.integers(-127, 128, (8, 4, 3, 3)).astype(np.int8)
W_SCALE = RNG.uniform(1e-3, 4e-3, 8).astype(np.float32)
BIAS = RNG.integers(-2000, 2000, 8).astype(np.int32)


def fused(proto: onnx.ModelProto) -> Network:
    network = import_onnx(proto)
    run_passes(network)
    return network


def runtime_output(proto: onnx.ModelProto, x: Array) -> Array:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto.ir_version = 8
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def compare(proto: onnx.ModelProto, shape: Sequence[int], step: float) -> Network:
    """Fused and evaluated as kernels compute, against ONNX Runtime without its optimiser.

    Integers may differ by one where a real value lies within float32 rounding of the edge
    between two, which happens to one value in some 10^5: here to at most one in 10^3.
    """
    network = fused(proto)
    x = np.random.default_rng(1).standard_normal(tuple(shape)).astype(np.float32)
    expected = runtime_output(proto, x)
    (got,) = evaluate_network(network, {"x": x}).values()
    difference = np.abs(got - expected)
    assert difference.max() <= step * 1.001
    assert (difference > 1e-6).mean() <= 1e-3
    assert np.abs(expected).max() > 10 * step
    return network


def products(network: Network) -> list[tuple[str, DataType]]:
    kinds = ("convolution", "fully_connected", "matrix_multiply")
    return [(y.kind, y.inputs[0].dtype) for y in network.layers if y.kind in kinds]


def zeros(dtype: type[np.integer[Any]], value: int) -> Array:
    return np.array(value, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "x_zero", "y_zero", "relu"),
    [
        (np.int8, 0, 0, False),
        (np.int8, -7, 3, False),
        (np.uint8, 0, 0, True),
        (np.uint8, 128, 128, False),
        (np.uint8, 113, 5, True),
    ],
)
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 0)])
def test_qdq_convolution(dtype, x_zero, y_zero, relu, pads):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "sb", "zb"], ["bd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["c"], pads=pads),
        helper.make_node("Relu" if relu else "Identity", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "sy", "zy"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    constants = {
        "sx": np.float32(0.02), "zx": zeros(dtype, x_zero),
        "w": W, "sw": W_SCALE, "zw": np.zeros(8, np.int8),
        "b": BIAS, "sb": W_SCALE * np.float32(0.02), "zb": np.zeros(8, np.int32),
        "sy": np.float32(0.05), "zy": zeros(dtype, y_zero),
    }  # fmt: skip
    proto = model(nodes, {"x": (2, 4, 9, 8)}, ["y"], constants)
    network = compare(proto, (2, 4, 9, 8), 0.05)
    assert [d for _, d in products(network)] == [
        DataType.INT8 if dtype is np.int8 else DataType.UINT8
    ]
    (conv,) = [y for y in network.layers if y.kind == "convolution"]
    assert network.layers[-1] is conv  # rounded to 8 bits and back in one expression
    assert "round" in text(conv.epilogue.expr)
    assert conv.inputs[1].dtype is DataType.INT8
    is_padded = any(y.kind == "pad" for y in network.layers)
    assert is_padded == (x_zero != 0 and any(pads))


@pytest.mark.parametrize(("w_type", "w_zero"), [(np.int8, 0), (np.uint8, 128), (np.int8, 9)])
def test_qlinear_convolution_with_zero_point_of_weights(w_type, w_zero):
    centre = 0 if w_type is np.int8 else 128
    w = np.clip(W.astype(int) + centre, 0 if centre else -118, 255 if centre else 127)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node(
            "QLinearConv", ["xq", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"], ["yq"],
            pads=[1, 1, 1, 1], strides=[2, 2],
        ),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]  # fmt: skip
    constants = {
        "sx": np.float32(0.02), "zx": zeros(np.uint8, 120), "w": w.astype(w_type),
        "sw": np.float32(0.002), "zw": zeros(w_type, w_zero),
        "sy": np.float32(0.06), "zy": zeros(np.uint8, 131), "b": BIAS,
    }  # fmt: skip
    network = compare(model(nodes, {"x": (1, 4, 9, 8)}, ["y"], constants), (1, 4, 9, 8), 0.06)
    is_exact = w_type is np.uint8 or w_zero == 0
    assert products(network)[0][1] is (
        DataType.UINT8 if is_exact or w_zero == 9 else DataType.FLOAT32
    )


def test_weights_that_leave_int8_stay_float():
    w = np.clip(W.astype(int) + 100, 0, 255).astype(np.uint8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["y"]),
    ]
    constants = {"s": np.float32(0.02), "z": zeros(np.uint8, 0), "w": w}
    network = fused(model(nodes, {"x": (1, 4, 9, 8)}, ["y"], constants))
    assert products(network) == [("convolution", DataType.FLOAT32)]
    assert network.layers[-1].inputs[1].is_constant


def residual_model() -> onnx.ModelProto:
    """Two convolutions, pooling between, a sum of both branches: all in Q/DQ."""

    def q(name: str, result: str, number: int) -> list[onnx.NodeProto]:
        s, z = f"s{number}", f"z{number}"
        return [
            helper.make_node("QuantizeLinear", [name, s, z], [f"{result}.q"]),
            helper.make_node("DequantizeLinear", [f"{result}.q", s, z], [result]),
        ]

    nodes = [
        *q("x", "xd", 0),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        *q("b", "bd", 1),
        helper.make_node("MaxPool", ["bd"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        *q("p", "pd", 1),
        helper.make_node("DequantizeLinear", ["v", "sw"], ["vd"], axis=0),
        helper.make_node("Conv", ["pd", "vd"], ["c"], pads=[1, 1, 1, 1]),
        *q("c", "cd", 2),
        helper.make_node("Add", ["cd", "pd"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        *q("e", "y", 3),
    ]
    constants: dict[str, Any] = {
        "w": W, "v": RNG.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8), "sw": W_SCALE,
    }  # fmt: skip
    for number, (scale, zero) in enumerate(((0.02, 3), (0.03, 0), (0.06, 121), (0.05, 0))):
        constants[f"s{number}"] = np.float32(scale)
        constants[f"z{number}"] = zeros(np.uint8, zero)
    return model(nodes, {"x": (1, 4, 8, 8)}, ["y"], constants)


def test_residual_network_is_integer_throughout():
    network = compare(residual_model(), (1, 4, 8, 8), 0.05)
    assert [d for _, d in products(network)] == [DataType.UINT8] * 2
    reals = [t for y in network.layers for t in y.outputs if t.dtype is DataType.FLOAT32]
    assert reals == network.outputs
    pool = next(y for y in network.layers if y.kind == "pooling")
    assert (pool.inputs[0].dtype, pool.output.dtype) == (DataType.UINT8, DataType.UINT8)


def test_concatenation_of_two_scales_is_quantised_part_by_part():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s0", "z0"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s0", "z0"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "s1", "z1"], ["aq"]),
        helper.make_node("DequantizeLinear", ["aq", "s1", "z1"], ["ad"]),
        helper.make_node("Conv", ["xd", "wd"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "s2", "z2"], ["bq"]),
        helper.make_node("DequantizeLinear", ["bq", "s2", "z2"], ["bd"]),
        helper.make_node("Concat", ["ad", "bd"], ["c"], axis=1),
        helper.make_node("QuantizeLinear", ["c", "s2", "z2"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s2", "z2"], ["y"]),
    ]
    constants: dict[str, Any] = {"w": W, "sw": W_SCALE}
    for number, (scale, zero) in enumerate(((0.02, 3), (0.04, 100), (0.05, 120))):
        constants[f"s{number}"] = np.float32(scale)
        constants[f"z{number}"] = zeros(np.uint8, zero)
    network = compare(model(nodes, {"x": (1, 4, 8, 8)}, ["y"], constants), (1, 4, 8, 8), 0.05)
    joined = next(y for y in network.layers if y.kind == "concatenation")
    assert {t.dtype for t in joined.inputs} == {DataType.UINT8}


@pytest.mark.parametrize("transpose", [0, 1])
def test_matrix_products_become_fully_connected_layers(transpose):
    w = RNG.integers(-127, 128, (5, 12) if transpose else (12, 5)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["wd"]),
        helper.make_node("Gemm", ["xd", "wd", "b"], ["g"], transB=transpose),
        helper.make_node("QuantizeLinear", ["g", "sy", "zx"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zx"], ["y"]),
    ]
    constants = {
        "sx": np.float32(0.02), "zx": zeros(np.uint8, 120), "w": w, "sw": np.float32(0.01),
        "b": RNG.standard_normal(5).astype(np.float32), "sy": np.float32(0.05),
    }  # fmt: skip
    network = compare(model(nodes, {"x": (200, 12)}, ["y"], constants), (200, 12), 0.05)
    assert products(network) == [("fully_connected", DataType.UINT8)]
    assert kinds_with_float_products(network) == []


def kinds_with_float_products(network: Network) -> list[str]:
    return [kind for kind, dtype in products(network) if dtype is DataType.FLOAT32]


def test_quantised_shufflenet_keeps_every_product_in_integers():
    from support.cases import DATA

    network = fused(onnx.load(DATA / "onnx/classify/shufflenet-v2-12-int8.onnx"))
    assert len(products(network)) == 57
    assert kinds_with_float_products(network) == []

"""Operator forms that the node suite of today's opset does not reach, against ONNX Runtime.

Both sides take the same float32 inputs of magnitude about 1. The importer's evaluation is in
float64; ONNX Runtime sums at most a few hundred float32 products, each rounded to 2^-24: 1e-4 is
ample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from support.onnx_models import Array, model, single

RNG = np.random.default_rng(2)


def ints(*values: int) -> Array:
    return np.asarray(values, np.int64)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


# (operator, opset, shape of x, constant inputs, attributes)
FORMS: list[tuple[str, int, tuple[int, ...], list[Any], dict[str, Any]]] = [
    ("Softmax", 7, (2, 3, 4), [], {}),
    ("Softmax", 11, (2, 3, 4), [], {"axis": 0}),
    ("Softmax", 12, (2, 3, 1, 1), [], {"axis": 1}),
    ("LogSoftmax", 9, (2, 3, 4), [], {"axis": 2}),
    ("Softmax", 13, (2, 3, 4), [], {"axis": 1}),
    ("Hardmax", 11, (2, 3, 4), [], {"axis": 1}),
    ("Slice", 7, (4, 5, 6), [], {"starts": [1, -3], "ends": [100, -1], "axes": [0, 2]}),
    ("Slice", 10, (4, 5), [ints(-1, 0), ints(-100, 5), ints(0, 1), ints(-2, 2)], {}),
    ("Slice", 13, (4, 5), [ints(3), ints(1), ints(-1)], {}),
    ("Split", 7, (2, 6), [], {"axis": 1, "split": [1, 5]}),
    ("Split", 13, (6, 2), [ints(2, 4)], {"axis": 0}),
    ("Split", 18, (7, 2), [], {"num_outputs": 2}),
    ("Pad", 7, (2, 3), [], {"pads": [0, 2, 1, -1], "value": 1.5}),
    ("Pad", 9, (4, 5), [], {"pads": [1, 2, 0, 3], "mode": "reflect"}),
    ("Pad", 11, (4, 5), [ints(1, 2, 0, 3)], {"mode": "edge"}),
    ("Pad", 19, (4, 5), [ints(2, 1), None, ints(-1)], {"mode": "wrap"}),
    ("Upsample", 7, (1, 2, 3, 4), [], {"scales": [1.0, 1.0, 2.0, 3.0]}),
    ("Upsample", 9, (1, 2, 3, 4), [np.float32([1, 1, 2, 2])], {"mode": "linear"}),
    ("Resize", 10, (1, 2, 5, 4), [np.float32([1, 1, 0.6, 2.5])], {}),
    ("Resize", 11, (1, 1, 4, 4), [np.float32([]), np.float32([1, 1, 2, 2])], {"mode": "cubic"}),
    (
        "Resize",
        11,
        (1, 1, 4, 6),
        [np.float32([]), np.float32([]), ints(1, 1, 7, 9)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    (
        "Resize",
        13,
        (1, 1, 4, 6),
        [None, None, ints(1, 1, 9, 3)],
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    ("Clip", 7, (3, 4), [], {"min": -0.5, "max": 0.25}),
    ("Clip", 7, (3, 4), [], {"min": 0.0}),
    ("Clip", 11, (3, 4), [None, np.float32(0.5)], {}),
    ("Clip", 13, (3, 4), [np.float32(0.1), np.float32(0.5)], {}),
    ("Dropout", 7, (3, 4), [], {"ratio": 0.9}),
    ("BatchNormalization", 9, (2, 3, 4), [floats(3), floats(3), floats(3), positive(3)], {}),
    ("BatchNormalization", 7, (2, 3), [floats(3), floats(3), floats(3), positive(3)], {}),
    ("Gemm", 9, (2, 3), [floats(3, 4), floats(4)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", 11, (3, 2), [floats(4, 3), floats(2, 1)], {"transA": 1, "transB": 1}),
    ("Gemm", 11, (2, 3), [floats(3, 4)], {}),
    ("MatMul", 9, (3,), [floats(3, 4)], {}),
    ("MatMul", 9, (2, 5, 3), [floats(3)], {}),
    ("MatMul", 9, (3,), [floats(3)], {}),
    ("MatMul", 9, (2, 1, 5, 3), [floats(4, 3, 2)], {}),
    (
        "Conv",
        11,
        (1, 4, 7, 6),
        [floats(6, 2, 3, 2)],
        {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 3]},
    ),
    ("Conv", 11, (1, 2, 9), [floats(3, 2, 3), floats(3)], {"dilations": [2], "pads": [1, 2]}),
    ("Conv", 11, (1, 1, 5, 6, 7), [floats(2, 1, 3, 3, 3)], {"auto_pad": "VALID"}),
    (
        "ConvTranspose",
        11,
        (1, 4, 5, 6),
        [floats(4, 3, 3, 3), floats(6)],
        {"group": 2, "strides": [2, 2], "pads": [1, 0, 2, 1], "output_padding": [1, 0]},
    ),
    ("ConvTranspose", 11, (1, 2, 5), [floats(2, 3, 4)], {"strides": [3], "output_shape": [14]}),
    ("ConvTranspose", 11, (1, 2, 5), [floats(2, 3, 3)], {"strides": [2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", 10, (1, 2, 7, 8), [], {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1}),
    ("MaxPool", 11, (1, 2, 9), [], {"kernel_shape": [3], "dilations": [2], "pads": [1, 1]}),
    (
        "MaxPool",
        8,
        (1, 2, 7, 8),
        [],
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    (
        "AveragePool",
        11,
        (1, 2, 7, 8),
        [],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
    ),
    (
        "AveragePool",
        11,
        (1, 2, 6, 6),
        [],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "count_include_pad": 1},
    ),
    ("LpPool", 11, (1, 2, 7, 8), [], {"kernel_shape": [3, 2], "p": 3, "strides": [2, 2]}),
    ("GlobalLpPool", 2, (1, 2, 4, 4), [], {"p": 3}),
    ("GlobalAveragePool", 7, (2, 3, 4, 5), [], {}),
    ("GlobalMaxPool", 7, (2, 3, 4, 5), [], {}),
    ("LRN", 7, (1, 7, 3, 3), [], {"size": 5, "alpha": 0.3, "beta": 0.6, "bias": 1.5}),
    ("InstanceNormalization", 7, (2, 3, 4, 5), [floats(3), floats(3)], {"epsilon": 1e-3}),
    ("LpNormalization", 7, (2, 3, 4), [], {"axis": 1, "p": 1}),
    ("MeanVarianceNormalization", 9, (2, 3, 4, 5), [], {}),
    ("ReduceMean", 11, (2, 3, 4), [], {"axes": [-1, 0], "keepdims": 0}),
    ("ReduceSum", 11, (2, 3, 4), [], {}),
    ("ReduceSum", 13, (2, 3, 4), [ints(1)], {"keepdims": 0}),
    ("ReduceL2", 18, (2, 3, 4), [ints(0, 2)], {}),
    ("ReduceMax", 18, (2, 3, 4), [], {"noop_with_empty_axes": 1}),
    ("Squeeze", 7, (1, 3, 1, 4), [], {"axes": [0, 2]}),
    ("Squeeze", 13, (1, 3, 1, 4), [ints(-2)], {}),
    ("Unsqueeze", 11, (3, 4), [], {"axes": [-1, 0]}),
    ("Flatten", 7, (2, 3, 4), [], {"axis": 2}),
    ("Flatten", 11, (2, 3, 4), [], {"axis": -3}),
    ("Reshape", 7, (2, 3, 4), [ints(0, -1)], {}),
    ("Tile", 7, (2, 3), [ints(2, 3)], {}),
    ("Tile", 13, (3, 1, 2), [ints(1, 4, 2)], {}),
    ("Tile", 13, (2, 1, 3, 2, 1, 2, 1, 3), [ints(2, 3, 1, 2, 2, 2, 1, 2)], {}),
    ("Tile", 13, (2,) * 8, [ints(*[2] * 8)], {}),
    ("Expand", 8, (3, 1), [ints(2, 1, 4)], {}),
    ("Gather", 11, (4, 5), [np.asarray([[0, -1], [2, 2]], np.int64)], {"axis": 1}),
    ("Gather", 11, (4, 5), [ints(3, 1)], {"axis": 0}),
    ("Gather", 11, (4, 5), [np.asarray(-2, np.int64)], {"axis": 1}),
    ("GatherElements", 11, (3, 4), [np.asarray([[0, -1, 2], [1, 1, 0]], np.int64)], {}),
    (
        "GatherND",
        12,
        (2, 3, 4),
        [np.asarray([[[1], [-1]], [[0], [2]]], np.int64)],
        {"batch_dims": 1},
    ),
    ("DepthToSpace", 7, (1, 8, 2, 3), [], {"blocksize": 2}),
    ("DepthToSpace", 11, (1, 8, 2, 3), [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", 7, (1, 2, 4, 6), [], {"blocksize": 2}),
    ("PRelu", 9, (2, 3, 4, 5), [floats(3, 1, 1)], {}),
    ("Pow", 12, (3, 4), [np.asarray(3, np.int64)], {}),
    ("Pow", 7, (3, 4), [np.float32(2)], {}),
    ("Sum", 8, (3, 4), [floats(4), floats(3, 1)], {}),
    ("Mean", 8, (3, 4), [floats(4), floats(3, 1)], {}),
    ("Max", 12, (3, 4), [floats(4), floats(3, 1)], {}),
    ("CumSum", 11, (3, 4), [np.asarray(1, np.int64)], {"reverse": 1, "exclusive": 1}),
    ("TopK", 11, (3, 7), [ints(3)], {"axis": 1, "largest": 0}),
    ("ArgMax", 12, (3, 7), [], {"axis": 1, "select_last_index": 1, "keepdims": 0}),
    ("OneHot", 11, (3,), [np.float32(4), np.float32([2, 5])], {"axis": 0}),
    ("LayerNormalization", 17, (2, 3, 4), [floats(3, 4), floats(3, 4)], {"axis": -2}),
    ("Gelu", 20, (3, 4), [], {"approximate": "tanh"}),
    ("Celu", 12, (3, 4), [], {"alpha": 0.7}),
    ("ThresholdedRelu", 10, (3, 4), [], {"alpha": 0.3}),
    ("Shrink", 9, (3, 4), [], {"lambd": 0.4, "bias": 0.1}),
    ("HardSigmoid", 7, (3, 4), [], {"alpha": 0.4}),
    ("Selu", 7, (3, 4), [], {"alpha": 1.2, "gamma": 0.9}),
    ("IsInf", 10, (3, 4), [], {"detect_negative": 0}),
]
TWO_OUTPUTS = ("Split", "TopK")


@pytest.mark.parametrize(
    ("op_type", "opset", "shape", "constants", "attributes"),
    FORMS,
    ids=[f"{f[0]}-{f[1]}-{i}" for i, f in enumerate(FORMS)],
)
def test_operator_agrees_with_onnx_runtime(
    op_type: str, opset: int, shape: tuple[int, ...], constants: list[Any], attributes: Any
) -> None:
    x = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    if op_type == "OneHot":
        x = np.float32([1, -1, 9])
    if op_type == "Pow":
        x = np.abs(x)
    count = 2 if op_type in TWO_OUTPUTS else 1
    got = single(op_type, x, constants, opset=opset, outputs=count, **attributes)
    names = ["x", *("" if c is None else f"c{i}" for i, c in enumerate(constants))]
    node = helper.make_node(op_type, names, [f"y{i}" for i in range(count)], **attributes)
    known = {f"c{i}": c for i, c in enumerate(constants) if c is not None}
    whole = model([node], {"x": shape}, [f"y{i}" for i in range(count)], known, opset=opset)
    whole.ir_version = 8
    del whole.graph.output[:]  # ONNX Runtime infers the element types of outputs
    whole.graph.output.extend(helper.make_empty_tensor_value_info(f"y{i}") for i in range(count))
    session = onnxruntime.InferenceSession(
        whole.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for have, want in zip(got, session.run(None, {"x": x}), strict=True):
        assert have.shape == want.shape
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


def test_opset_6_broadcast_by_axis() -> None:
    x, b = floats(2, 3, 4), floats(3)
    (got,) = single("Add", x, [b], opset=6, broadcast=1, axis=1)
    np.testing.assert_allclose(got, x + b.reshape(3, 1), rtol=1e-6)
    (got,) = single("PRelu", x, [b], opset=6)
    np.testing.assert_allclose(got, np.where(x >= 0, x, x * b.reshape(3, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bij,bkj->bik", [(2, 3, 4), (2, 5, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
        ("i,j->ji", [(2,), (3,)]),
        ("ij,ij->", [(2, 3), (2, 3)]),
        ("ijk->kj", [(2, 3, 4)]),
        ("ij,jk,kl", [(2, 3), (3, 4), (4, 5)]),
        ("abc,cd", [(2, 3, 4), (4, 5)]),
        ("ii->i", [(3, 3)]),
        ("iji,j->i", [(3, 2, 3), (2,)]),
    ],
)
def test_einsum_agrees_with_numpy(equation: str, shapes: list[tuple[int, ...]]) -> None:
    x, *others = (floats(*shape) for shape in shapes)
    (got,) = single("Einsum", x, others, equation=equation)
    np.testing.assert_allclose(got, np.einsum(equation, x, *others), rtol=1e-4, atol=1e-5)


def test_integer_division_truncates_and_mod_follows_its_sign() -> None:
    a = np.asarray([7, -7, 7, -7], np.int64)
    b = np.asarray([2, 2, -2, -2], np.int64)
    assert folded("Div", a, b).tolist() == [3, -3, -3, 3]
    assert folded("Mod", a, b).tolist() == [1, 1, -1, -1]
    assert folded("Mod", a, b, fmod=1).tolist() == [1, -1, 1, -1]


def folded(op_type: str, *values: Array, **attributes: Any) -> Array:
    """Result of an operator on constants alone."""
    from builder_host.importers.onnx import import_onnx

    names = [f"c{i}" for i in range(len(values))]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    network = import_onnx(model([node], {}, ["y"], dict(zip(names, values, strict=True))))
    (layer,) = network.layers
    (constant,) = layer.inputs
    assert constant.values is not None
    return constant.values


def test_batch_normalization_is_one_scale_layer() -> None:
    from builder_host.importers.onnx import import_onnx

    constants = dict(zip("sbmv", (positive(3), floats(3), floats(3), positive(3)), strict=True))
    node = helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y"], epsilon=0.25)
    network = import_onnx(model([node], {"x": [1, 3, 2, 2]}, ["y"], constants))
    (layer,) = network.layers
    assert layer.kind == "scale"
    factor = constants["s"] / np.sqrt(constants["v"].astype(np.float64) + 0.25)
    shift, scale = (t.values for t in layer.inputs[1:])
    np.testing.assert_allclose(np.ravel(scale), factor, rtol=1e-6)  # one float32 rounding
    np.testing.assert_allclose(
        np.ravel(shift), constants["b"] - constants["m"] * factor, rtol=1e-5, atol=1e-6
    )

"""Kinds that reduce, normalise or move data: ONNX's reference evaluator and hand-made cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx.helper as oh
import pytest
from onnx.reference import ReferenceEvaluator
from support.networks import random

from builder_host.errors import NetworkError
from builder_host.network.layers import definition, kinds
from builder_host.network.layers.arg_reduce import ArgReduceParams
from builder_host.network.layers.broadcast import BroadcastParams
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.lrn import LrnParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.layers.normalize import NormalizeParams
from builder_host.network.layers.pad import PadParams
from builder_host.network.layers.reduce import REDUCE_OPS, ReduceParams
from builder_host.network.layers.reformat import ReformatParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.layers.resize import COORDINATE_MODES, NEAREST_MODES, ResizeParams
from builder_host.network.layers.slice import SliceParams
from builder_host.network.layers.softmax import SoftmaxParams
from builder_host.network.layers.top_k import TopKParams
from builder_host.network.layers.transpose import TransposeParams
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat


def run_onnx(op, arrays, opset=19, outputs=1, **attributes):
    names = [f"i{n}" if a is not None else "" for n, a in enumerate(arrays)]
    results = [f"y{n}" for n in range(outputs)]
    node = oh.make_node(op, names, results, **attributes)
    graph = oh.make_graph(
        [node],
        "g",
        [
            oh.make_tensor_value_info(n, oh.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, arrays, strict=True)
            if a is not None
        ],
        [oh.make_tensor_value_info(n, 1, None) for n in results],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)])
    feeds = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
    return ReferenceEvaluator(model).run(None, feeds)


def run(kind, params, arrays, dtypes=None):
    dtypes = dtypes or [DataType.FLOAT32 if a.dtype.kind == "f" else DataType.INT64 for a in arrays]
    types = [TensorType(a.shape, d) for a, d in zip(arrays, dtypes, strict=True)]
    inferred = definition(kind).infer(params, types)
    values = definition(kind).reference(params, arrays)
    assert [t.shape for t in inferred] == [v.shape for v in values]
    return values


def test_every_kind_has_a_definition():
    assert {"convolution", "pooling", "softmax"} <= set(kinds())
    for kind in kinds():
        assert definition(kind).kind == kind
    with pytest.raises(NetworkError, match="unknown layer kind 'conv'; known: activation"):
        definition("conv")


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("axes", [(1,), (0, 2), ()])
@pytest.mark.parametrize("op", list(REDUCE_OPS))
def test_reduce(op, axes, keep):
    name = {"l1": "L1", "l2": "L2"}.get(op) or "".join(p.capitalize() for p in op.split("_"))
    x = np.abs(random(2, 3, 4)).astype(np.float64) + 0.1
    arrays = [x, np.asarray(axes, dtype=np.int64)]
    (value,) = run("reduce", ReduceParams(op, axes, keep), [x])
    if axes:
        (expected,) = run_onnx("Reduce" + name, arrays, 18, keepdims=int(keep))
    else:
        expected = {"log_sum": np.log(x), "sum_square": x * x}.get(op, x)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_lrn_across_channels_reaches_as_far_as_onnx_states(size):
    x = random(2, 7, 3, 3).astype(np.float64)
    (value,) = run("lrn", LrnParams(size, 0.5, 0.75, 2.0), [x])
    for c in range(7):
        first, last = max(0, c - (size - 1) // 2), min(6, c + math.ceil((size - 1) / 2))
        total = (x[:, first : last + 1] ** 2).sum(axis=1)
        expected = x[:, c] / (2.0 + 0.5 / size * total) ** 0.75
        np.testing.assert_allclose(value[:, c], expected, rtol=1e-12)


def test_lrn_within_a_channel_divides_by_the_whole_square():
    x = np.ones((1, 1, 3, 3))
    (value,) = run("lrn", LrnParams(3, 9.0, 1.0, 1.0, "within"), [x])
    cells = np.asarray([[4, 6, 4], [6, 9, 6], [4, 6, 4]])
    np.testing.assert_allclose(value[0, 0], 1 / (1 + cells), rtol=1e-15)


@pytest.mark.parametrize("log", [True, False])
def test_softmax_is_stable(log):
    x = np.asarray([[1000.0, 1001.0, 999.0], [-1000.0, 0.0, 1.0]])
    (value,) = run("softmax", SoftmaxParams(1, log), [x])
    e = np.exp(x - x.max(axis=1, keepdims=True))
    expected = e / e.sum(axis=1, keepdims=True)
    if log:
        value = np.exp(value)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_resize_equals_onnx_in_every_mode():
    x = random(1, 2, 4, 8).astype(np.float64)
    none = np.asarray([], dtype=np.float32)
    cases = list(
        itertools.product(
            ["nearest", "linear", "cubic"],
            [m for m in COORDINATE_MODES if m.startswith(("h", "p", "al", "as"))],
            [(1.0, 1.0, 2.0, 1.5), (1.0, 1.0, 0.5, 0.75), (1.0, 1.0, 0.75, 3.0)],  # whole extents
        )
    )
    for mode, coordinate, scales in cases:
        modes = NEAREST_MODES if mode == "nearest" else NEAREST_MODES[:1]
        exclusions = (0, 1) if mode == "cubic" else (0,)
        for nearest, exclude in itertools.product(modes, exclusions):
            (expected,) = run_onnx(
                "Resize", [x, none, np.asarray(scales, dtype=np.float32)], mode=mode,
                coordinate_transformation_mode=coordinate, nearest_mode=nearest,
                exclude_outside=exclude,
            )  # fmt: skip
            params = ResizeParams(
                expected.shape, mode, coordinate, nearest, scales, exclude_outside=bool(exclude)
            )
            (value,) = run("resize", params, [x])
            # the reference evaluator computes weights of the cubic kernel in float32
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5, err_msg=f"{params}")


def test_crop_and_resize_writes_the_extrapolation_value():
    x = np.arange(16, dtype=np.float64).reshape(1, 1, 4, 4)
    roi = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0)
    params = ResizeParams(
        (1, 1, 4, 3), "linear", "tf_crop_and_resize", "floor", (1.0, 1.0, 1.0, 0.75),
        extrapolation_value=-7.0, roi=roi,
    )  # fmt: skip
    (value,) = run("resize", params, [x])
    # columns 0, 3 and 6 are read; 6 is outside
    assert value[0, 0, 0].tolist() == [0.0, 3.0, -7.0]


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad_equals_onnx(mode):
    x = random(3, 4).astype(np.float64)
    pads = np.asarray([1, 2, 2, 3])
    (expected,) = run_onnx("Pad", [x, pads], mode=mode)
    (value,) = run("pad", PadParams((1, 2), (2, 3), mode), [x])
    np.testing.assert_array_equal(value, expected)


def test_pad_crops_and_refuses_to_reflect_too_far():
    x = np.arange(6.0).reshape(2, 3)
    (value,) = run("pad", PadParams((0, -1), (1, 0), value=9.0), [x])
    assert value.tolist() == [[1.0, 2.0], [4.0, 5.0], [9.0, 9.0]]
    with pytest.raises(NetworkError, match="reflect pads 3 and 0 of dimension 1 need more than"):
        definition("pad").infer(PadParams((0, 3), (0, 0), "reflect"), [TensorType((2, 3))])


def test_matrix_multiply_broadcasts_batches_and_transposes():
    a, b = random(5, 1, 3, 2), random(4, 3, 6, seed=1)
    (value,) = run("matrix_multiply", MatrixMultiplyParams(transpose_a=True), [a, b])
    expected = np.matmul(a.astype(float).swapaxes(-1, -2), b.astype(float))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    with pytest.raises(NetworkError, match="shared dimension is 2 in 3x2:f32 but 3 in 3x6"):
        definition("matrix_multiply").infer(
            MatrixMultiplyParams(), [TensorType((3, 2)), TensorType((3, 6))]
        )


def test_fully_connected_flattens():
    x, w, b = random(2, 3, 2, 2), random(5, 12, seed=1), random(5, seed=2)
    (value,) = run("fully_connected", FullyConnectedParams(), [x, w, b])
    expected = x.reshape(2, 12).astype(float) @ w.T.astype(float) + b
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    with pytest.raises(NetworkError, match="12 elements per image"):
        definition("fully_connected").infer(
            FullyConnectedParams(), [TensorType((2, 3, 2, 2)), TensorType((5, 11))]
        )


def test_gather_counts_from_the_end_and_gives_zero_out_of_range():
    data = np.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    (value,) = run("gather", GatherParams(1), [data, np.asarray([[0, -1], [3, -4]])])
    assert value.tolist() == [[[1.0, 3.0], [0.0, 0.0]], [[4.0, 6.0], [0.0, 0.0]]]


def test_slice_with_negative_and_zero_strides():
    x = np.arange(12.0).reshape(3, 4)
    (value,) = run("slice", SliceParams((2, 1), (3, 2), (-1, 0)), [x])
    assert value.tolist() == [[9.0, 9.0], [5.0, 5.0], [1.0, 1.0]]
    with pytest.raises(NetworkError, match="extent 4 is read from 1 to 4"):
        definition("slice").infer(SliceParams((0, 1), (3, 4), (1, 1)), [TensorType((3, 4))])


def test_moves_of_whole_tensors():
    x = random(2, 3, 4)
    (value,) = run("transpose", TransposeParams((2, 0, 1)), [x])
    np.testing.assert_array_equal(value, np.transpose(x, (2, 0, 1)))
    (value,) = run("reshape", ReshapeParams((6, 4)), [x])
    np.testing.assert_array_equal(value, x.reshape(6, 4))
    (value,) = run("broadcast", BroadcastParams((5, 2, 3, 4)), [x])
    np.testing.assert_array_equal(value, np.broadcast_to(x, (5, 2, 3, 4)))
    (value,) = run("concatenation", ConcatenationParams(1), [x, x[:, :1]])
    np.testing.assert_array_equal(value, np.concatenate([x, x[:, :1]], axis=1))
    image = random(1, 3, 2, 2)
    (value,) = run("reformat", ReformatParams(TensorFormat.NCHW16C), [image])
    np.testing.assert_array_equal(value, image)


@pytest.mark.parametrize(
    ("kind", "params", "shapes", "words"),
    [
        ("transpose", TransposeParams((0, 0)), [(2, 3)], "permutation (0, 0)"),
        ("reshape", ReshapeParams((5,)), [(2, 3)], "6 elements"),
        ("broadcast", BroadcastParams((2, 4)), [(2, 3)], "(2, 3) does not broadcast to (2, 4)"),
        ("concatenation", ConcatenationParams(1), [(2, 3), (3, 3)], "input 1 is 3x3:f32"),
        ("reformat", ReformatParams(TensorFormat.NCHW8C), [(2, 3)], "NCHW8C needs a rank-4"),
        ("softmax", SoftmaxParams(2), [(2, 3)], "axis 2 is outside 0..1"),
        ("reduce", ReduceParams("sum", (0, 0)), [(2, 3)], "repeat"),
        ("top_k", TopKParams(4, 1), [(2, 3)], "k is 4, axis 1 has 3"),
        ("lrn", LrnParams(2, 1.0, 1.0, 1.0, "within"), [(1, 2, 3, 3)], "must be odd"),
    ],
)
def test_rules_are_named(kind, params, shapes, words):
    with pytest.raises(NetworkError) as caught:
        definition(kind).infer(params, [TensorType(s) for s in shapes])
    assert words in str(caught.value)


def test_cast_truncates_wraps_and_tests_for_zero():
    x = np.asarray([1.9, -1.9, 300.0, 0.0])
    (value,) = run("cast", CastParams(DataType.INT64), [x])
    assert value.tolist() == [1, -1, 300, 0]
    (value,) = run("cast", CastParams(DataType.UINT8), [x])
    assert value.tolist() == [1, 255, 44, 0]
    (value,) = run("cast", CastParams(DataType.BOOL), [x])
    assert value.tolist() == [True, True, True, False]


def test_arg_reduce_and_top_k_order_equal_elements_by_position():
    x = np.asarray([[1.0, 3.0, 3.0, 0.0]])
    (first,) = run("arg_reduce", ArgReduceParams("max", 1), [x])
    (last,) = run("arg_reduce", ArgReduceParams("max", 1, False, True), [x])
    assert (first.tolist(), last.tolist()) == ([[1]], [2])
    values, indices = run("top_k", TopKParams(3, 1), [x])
    assert (values.tolist(), indices.tolist()) == ([[3.0, 3.0, 1.0]], [[1, 2, 0]])
    values, indices = run("top_k", TopKParams(2, 1, largest=False), [x])
    assert (values.tolist(), indices.tolist()) == ([[0.0, 1.0]], [[3, 0]])


def test_normalize_over_channels_and_over_images():
    x, scale = random(2, 3, 2, 2), np.asarray([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    for across, axes in ((False, (1,)), (True, (1, 2, 3))):
        (value,) = run("normalize", NormalizeParams(across, 1e-10), [x, scale])
        norm = np.sqrt((x.astype(float) ** 2).sum(axis=axes, keepdims=True) + 1e-10)
        np.testing.assert_allclose(value, x / norm * scale, rtol=1e-12)

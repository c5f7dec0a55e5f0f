"""Operators with positions known at run time, regions and transforms, against ONNX Runtime.

Inputs of magnitude about 1 in float32 on both sides; the importer's network is evaluated in
float64. ONNX Runtime sums at most a few hundred float32 products: 1e-4 is ample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from support.onnx_models import Array, problems_of

from builder_host.importers.onnx import import_onnx
from builder_host.network.evaluate import evaluate_network

RNG = np.random.default_rng(11)


def floats(*shape: int, low: float = -1, high: float = 1) -> Array:
    return RNG.uniform(low, high, shape).astype(np.float32)


def ints(low: int, high: int, *shape: int) -> Array:
    return RNG.integers(low, high, shape)


def distinct(count: int, bound: int) -> Array:
    return RNG.permutation(bound)[:count]


def huge(*shape: int) -> Array:
    """An array without memory of its own."""
    return np.broadcast_to(np.float32(0), shape)


def boxes(count: int) -> Array:
    corner = RNG.uniform(0, 8, (count, 2))
    return np.concatenate([corner, corner + RNG.uniform(0.5, 6, (count, 2))], axis=1).astype(
        np.float32
    )


# (operator, opset, inputs by name, names of those that are known at build time, attributes)
FORMS: list[tuple[str, int, dict[str, Any], str, dict[str, Any]]] = [
    ("GatherElements", 13, {"x": floats(4, 5), "i": ints(-4, 4, 3, 5)}, "", {"axis": 0}),
    ("GatherND", 13, {"x": floats(4, 5, 3), "i": ints(-4, 4, 2, 6, 1)}, "", {}),
    ("GatherND", 13, {"x": floats(4, 5, 3), "i": ints(-3, 3, 4, 2)}, "", {"batch_dims": 1}),
    (
        "ScatterElements",
        18,
        {"x": floats(6, 5), "i": ints(0, 5, 6, 9), "u": floats(6, 9)},
        "",
        {"axis": 1, "reduction": "add"},
    ),
    (
        "ScatterElements",
        18,
        {"x": floats(6, 5), "i": ints(-6, 6, 9, 4), "u": floats(9, 4)},
        "",
        {"reduction": "max"},
    ),
    (
        "ScatterND",
        18,
        {"x": floats(7, 5), "i": distinct(4, 7).reshape(4, 1), "u": floats(4, 5)},
        "",
        {},
    ),
    (
        "ScatterND",
        18,
        {"x": floats(3, 5), "i": ints(0, 3, 9, 2), "u": floats(9)},
        "",
        {"reduction": "mul"},
    ),
    ("CumSum", 14, {"x": floats(3, 40), "a": np.asarray(-1)}, "a", {"reverse": 1}),
    ("CumSum", 14, {"x": ints(-99, 99, 8, 3), "a": np.asarray(0)}, "a", {"exclusive": 1}),
    (
        "ReverseSequence",
        10,
        {"x": floats(5, 4, 3), "n": ints(1, 6, 4)},
        "",
        {"time_axis": 0, "batch_axis": 1},
    ),
    ("Compress", 11, {"x": floats(4, 6), "c": ints(0, 2, 6).astype(bool)}, "c", {"axis": 1}),
    ("GridSample", 20, {"x": floats(2, 3, 4, 5, 6), "g": floats(2, 3, 4, 5, 3) * 1.3}, "", {}),
    (
        "GridSample",
        16,
        {"x": floats(2, 3, 9, 8), "g": floats(2, 7, 6, 2) * 1.3},
        "",
        {"mode": "bicubic", "padding_mode": "reflection"},
    ),
    (
        "RoiAlign",
        16,
        {"x": floats(2, 3, 12, 14), "r": boxes(5), "b": ints(0, 2, 5)},
        "",
        {"output_height": 3, "output_width": 4, "spatial_scale": 0.8},
    ),
    (
        "RoiAlign",
        10,
        {"x": floats(2, 3, 12, 14), "r": boxes(5), "b": ints(0, 2, 5)},
        "",
        {"output_height": 2, "output_width": 2, "sampling_ratio": 3},
    ),
    (
        "MaxRoiPool",
        1,
        {
            "x": floats(2, 3, 12, 14),
            "r": np.hstack([ints(0, 2, 6, 1), boxes(6)]).astype(np.float32),
        },
        "",
        {"pooled_shape": [4, 3], "spatial_scale": 0.7},
    ),
    ("MaxPool", 12, {"x": floats(2, 3, 9, 10)}, "", {"kernel_shape": [3, 2], "strides": [2, 2]}),
    (
        "MaxPool",
        12,
        {"x": floats(2, 3, 9, 10)},
        "",
        {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "dilations": [2, 1], "storage_order": 1},
    ),
    ("STFT", 17, {"x": floats(2, 60, 1), "s": np.asarray(7), "w": floats(16)}, "s", {}),
    ("DFT", 17, {"x": floats(2, 30, 2)}, "", {"axis": 1, "inverse": 1}),
    ("DFT", 17, {"x": floats(2, 12, 1), "n": np.asarray(9)}, "n", {"axis": 1, "onesided": 1}),
    (
        "Col2Im",
        18,
        {"x": floats(2, 12, 16), "i": np.asarray([5, 6]), "b": np.asarray([2, 3])},
        "i b",
        {"dilations": [2, 1], "pads": [1, 0, 0, 0], "strides": [1, 1]},
    ),
    (
        "Resize",
        18,
        {"x": floats(1, 2, 9, 14), "r": floats(0), "s": np.float32([1, 1, 0.45, 0.3])},
        "r s",
        {"mode": "linear", "antialias": 1},
    ),
    (
        "Resize",
        18,
        {"x": floats(1, 2, 9, 14), "r": floats(0), "s": np.float32([1, 1, 0.6, 1.5])},
        "r s",
        {"mode": "cubic", "antialias": 1, "cubic_coeff_a": -0.5},
    ),
]


def model_of(
    op_type: str, opset: int, values: Mapping[str, Array], known: str, attributes: Mapping[str, Any]
) -> Any:
    outputs = ["y", "z"] if op_type == "MaxPool" else ["y"]
    graph = helper.make_graph(
        [helper.make_node(op_type, list(values), outputs, **attributes)],
        "test",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in values.items()
            if n not in known.split()
        ],
        [helper.make_tensor_value_info(n, 0, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(values[n]), n) for n in known.split()],
    )
    for output, code in zip(graph.output, (_result_code(op_type, values), 7), strict=False):
        output.type.tensor_type.elem_type = code
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _result_code(op_type: str, values: Mapping[str, Array]) -> int:
    first = next(iter(values.values()))
    return 7 if op_type == "NonMaxSuppression" else helper.np_dtype_to_tensor_dtype(first.dtype)


@pytest.mark.parametrize("form", FORMS, ids=[f"{f[0]}-{n}" for n, f in enumerate(FORMS)])
def test_matches_onnx_runtime(form: tuple[str, int, dict[str, Any], str, dict[str, Any]]) -> None:
    op_type, opset, values, known, attributes = form
    made = model_of(op_type, opset, values, known, attributes)
    live = {n: np.asarray(v) for n, v in values.items() if n not in known.split()}
    wanted = onnxruntime.InferenceSession(made.SerializeToString()).run(None, live)
    network = import_onnx(made)
    got = evaluate_network(network, live)
    for output, want in zip(network.outputs, wanted, strict=True):
        assert output.shape == want.shape
        np.testing.assert_allclose(got[output.name], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("centre", [0, 1])
def test_suppression_gives_the_rows_of_onnx_runtime_then_minus_one(centre: int) -> None:
    found = np.stack([boxes(30), boxes(30)])
    if centre:
        found[..., 2:] -= found[..., :2]
    values = {
        "boxes": found,
        "scores": floats(2, 3, 30, low=0),
        "most": np.asarray([7]),
        "iou": np.float32([0.02]),
        "least": np.float32([0.6]),
    }
    made = model_of("NonMaxSuppression", 11, values, "most iou least", {"center_point_box": centre})
    live = {n: values[n] for n in ("boxes", "scores")}
    (wanted,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, live)
    got = evaluate_network(import_onnx(made), live)["y"]
    assert got.shape == (2 * 3 * 7, 3)
    assert 6 <= len(wanted) < len(got)
    np.testing.assert_array_equal(got[: len(wanted)], wanted)
    assert (got[len(wanted) :] == -1).all()


@pytest.mark.parametrize(
    ("op_type", "opset", "values", "known", "attributes", "problem"),
    [
        (
            "Compress", 11, {"x": floats(4), "c": ints(0, 2, 4) > 0}, "", {},
            "input 1 (condition) must be known at build time",
        ),
        ("Unique", 11, {"x": floats(4)}, "", {}, "input 0 (X) must be known at build time"),
        ("Det", 11, {"x": floats(5, 5)}, "", {}, "square matrices of 1 to 4 rows"),
        ("DFT", 17, {"x": floats(2, 8, 3)}, "", {"axis": 1}, "needs a last dimension of 1 or 2"),
        ("GridSample", 16, {"x": floats(2, 3, 4, 4), "g": floats(1, 2, 2, 2)}, "", {}, "batch"),
        (
            "ReverseSequence", 10, {"x": floats(3, 3, 3), "n": ints(1, 3, 3)}, "",
            {"time_axis": 2, "batch_axis": 0}, "must be 0 and 1 in some order",
        ),
        (
            "ScatterElements", 18, {"x": floats(3, 3), "i": ints(0, 2, 2, 2), "u": floats(2, 3)},
            "", {}, "do not fit data",
        ),
        (
            "SplitToSequence", 11, {"x": floats(5000)}, "", {}, "5,000 parts are more than 4,096",
        ),
        (
            "Resize", 18, {"x": floats(900), "r": floats(0), "s": np.float32([0.005])}, "r s",
            {"mode": "linear", "antialias": 1}, "antialias=1 shrinks by at most 100",
        ),
        (
            "STFT", 17,
            {"x": huge(1, 2**30, 1), "s": np.asarray(1), "w": huge(2**29)},
            "s", {}, "needs 1,152,921,506,754,330,624 bytes",
        ),
        (
            "BitCast", 26, {"x": floats(3).astype(np.float64)}, "", {"to": 7},
            "the bits of f64 are not kept",
        ),
    ],
)  # fmt: skip
def test_what_is_refused_is_explained(
    op_type: str, opset: int, values: Any, known: str, attributes: Any, problem: str
) -> None:
    (text,) = problems_of(model_of(op_type, opset, values, known, attributes))
    assert problem in text

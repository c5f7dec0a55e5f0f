"""Opset 1: the first meaning of every operator that changed since, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.onnx_models import model, single

from builder_host.importers.onnx import import_onnx
from builder_host.network.evaluate import evaluate_network

RNG = np.random.default_rng(4)
X = RNG.uniform(-1, 1, (2, 3, 4, 6)).astype(np.float32)
C = np.float32([0.5, 1.5, 2.0])
WIDE = C[:, None, None]
SCALED = (X - C[:, None, None]) / np.sqrt(WIDE + 1e-5)
MATRIX = RNG.uniform(-1, 1, (6, 5)).astype(np.float32)
ROW = RNG.uniform(-1, 1, 5).astype(np.float32)
MEAN = X.mean((2, 3), keepdims=True)
INSTANCE = (X - MEAN) / np.sqrt(X.var((2, 3), keepdims=True) + 1e-5)

# (operator, x, further inputs, attributes, expected)
FORMS: list[tuple[str, Any, list[Any], dict[str, Any], Any]] = [
    ("Add", X, [C], {"broadcast": 1, "axis": 1, "consumed_inputs": [0, 0]}, X + WIDE),
    ("Sub", X, [X[0, 0]], {"broadcast": 1}, X - X[0, 0]),
    ("Mul", X, [C], {"broadcast": 1, "axis": 1}, X * WIDE),
    ("Div", X, [C], {"broadcast": 1, "axis": 1}, X / WIDE),
    ("BatchNormalization", X, [C * 0 + 1, C * 0, C, C], {"consumed_inputs": [0] * 5}, SCALED),
    ("Cast", X * 9, [], {"to": "INT32"}, np.trunc(X * 9)),
    ("Clip", X, [], {"min": -0.2, "max": 0.3, "consumed_inputs": [0]}, X.clip(-0.2, 0.3)),
    ("Concat", X, [X], {}, np.concatenate([X, X], 1)),
    ("Dropout", X, [], {"is_test": 1, "ratio": 0.9, "consumed_inputs": [0]}, X),
    ("Elu", X, [], {"alpha": 2.0, "consumed_inputs": [0]}, np.where(X < 0, 2 * np.expm1(X), X)),
    ("Gemm", MATRIX.T, [MATRIX, ROW], {"broadcast": 1}, MATRIX.T @ MATRIX + ROW),
    ("GlobalLpPool", X, [], {"p": 2.0}, np.sqrt((X**2).sum((2, 3), keepdims=True))),
    ("HardSigmoid", X, [], {"consumed_inputs": [0]}, (0.2 * X + 0.5).clip(0, 1)),
    ("InstanceNormalization", X, [C * 0 + 1, C], {"consumed_inputs": [0] * 3}, INSTANCE + WIDE),
    ("LeakyRelu", X, [], {"alpha": 0.1, "consumed_inputs": [0]}, np.where(X < 0, 0.1 * X, X)),
    (
        "LpPool",
        X,
        [],
        {"kernel_shape": [4, 6], "p": 1.0},
        np.abs(X).sum((2, 3), keepdims=True),
    ),
    ("Max", X, [X * -1], {"consumed_inputs": [0, 0]}, np.abs(X)),
    ("Min", X, [X * -1], {}, -np.abs(X)),
    ("Mean", X, [X * 3], {}, X * 2),
    ("Sum", X, [X], {}, X + X),
    ("PRelu", X, [C], {"consumed_inputs": [0, 0]}, np.where(X < 0, X * WIDE, X)),
    ("Pad", X[0, 0], [], {"paddings": [1, 0, 0, 2]}, np.pad(X[0, 0], ((1, 0), (0, 2)))),
    ("Relu", X, [], {"consumed_inputs": [0]}, np.maximum(X, 0)),
    ("Reshape", X, [], {"shape": [0, -1], "consumed_inputs": [0]}, X.reshape(2, -1)),
    ("Selu", X, [], {"alpha": 1.0, "gamma": 2.0}, 2 * np.where(X < 0, np.expm1(X), X)),
    ("Split", X, [np.asarray([4, 2])], {"axis": 3}, X[..., :4]),
    ("Tile", X, [np.asarray(2), np.asarray(3)], {}, np.tile(X, (1, 1, 1, 2))),
    (
        "Upsample",
        X,
        [],
        {"height_scale": 2.0, "width_scale": 3.0},
        X.repeat(2, axis=2).repeat(3, axis=3),
    ),
]


@pytest.mark.parametrize("form", FORMS, ids=[form[0] for form in FORMS])
def test_first_version(form: tuple[str, Any, list[Any], dict[str, Any], Any]) -> None:
    op_type, x, others, attributes, expected = form
    count = 2 if op_type == "Split" else 1
    got = single(op_type, x, others, opset=1, outputs=count, **attributes)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_file_older_than_opsets_means_the_first_one() -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"])
    del made.opset_import[:]
    made.ir_version = 2
    assert onnx.ModelProto.FromString(made.SerializeToString()).ir_version == 2
    network = import_onnx(made.SerializeToString())
    assert evaluate_network(network, {"x": np.asarray([-1.0, 2.0])})["y"].tolist() == [0, 2]

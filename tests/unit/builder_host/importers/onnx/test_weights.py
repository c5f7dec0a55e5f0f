"""Stored tensors: raw and typed fields, halves and doubles, sparse, external files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.onnx_models import model, problems_of

from builder_host.importers.onnx import import_onnx
from builder_host.importers.onnx.weights import tensor_values
from builder_host.network.evaluate import evaluate_network
from planformat.datatypes import DataType


def adding(weights: onnx.TensorProto) -> onnx.ModelProto:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [2]}, ["y"])
    made.graph.initializer.append(weights)
    return made


def external(location: str, *, offset: str = "0", length: str = "8") -> onnx.ModelProto:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        weights.external_data.add(key=key, value=value)
    return adding(weights)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.INT64, np.int64),
        (TensorProto.UINT8, np.uint8),
        (TensorProto.BOOL, np.bool_),
    ],
)
def test_values_are_exact_in_both_forms(raw: bool, code: int, dtype: type) -> None:
    expected = np.asarray([[1, 0], [1, 1]], dtype)
    data = expected.tobytes() if raw else expected.ravel()
    tensor = helper.make_tensor("w", code, [2, 2], data, raw=raw)
    got = tensor_values(tensor, None, "w")
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, expected)


def test_half_weights_keep_their_type() -> None:
    half = helper.make_tensor("w", TensorProto.FLOAT16, [2], [1.5, -2.0])
    made = adding(half)
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    network = import_onnx(made)
    assert network.outputs[0].dtype is DataType.FLOAT16
    np.testing.assert_array_equal(evaluate_network(network, {"x": np.zeros(2)})["y"], [1.5, -2.0])


def test_sparse_initialiser_becomes_dense() -> None:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [4]}, ["y"])
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [3.0, 4.0])
    places = helper.make_tensor("i", TensorProto.INT64, [2], [1, 3])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    got = evaluate_network(import_onnx(made), {"x": np.zeros(4)})["y"]
    np.testing.assert_array_equal(got, [0, 3, 0, 4])


@pytest.mark.parametrize(
    ("places", "shape"), [([1, 4], [2]), ([0, 1, 0, 4], [2, 2]), ([1], [1]), ([-1, 2], [2])]
)
def test_sparse_indices_out_of_place(places: list[int], shape: list[int]) -> None:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [4]}, ["y"])
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [3.0, 4.0])
    indices = helper.make_tensor("i", TensorProto.INT64, shape, places)
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    (problem,) = problems_of(made)
    assert "sparse indices do not fit 2 values of (4,)" in problem


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 4 + np.asarray([1.0, 2.0], "<f4").tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(external("w.bin", offset="4").SerializeToString())
    got = evaluate_network(import_onnx(path), {"x": np.zeros(2)})["y"]
    np.testing.assert_array_equal(got, [1.0, 2.0])


@pytest.mark.parametrize(
    ("location", "extra", "text"),
    [
        ("../w.bin", {}, "leaves the model's folder"),
        ("/etc/passwd", {}, "leaves the model's folder"),
        ("sub/../../w.bin", {}, "leaves the model's folder"),
        ("", {}, "leaves the model's folder"),
        ("a\0b", {}, "leaves the model's folder"),
        ("link.bin", {}, "leaves the model's folder"),
        ("absent.bin", {}, "is missing"),
        ("w.bin", {"offset": "8"}, "ends at byte 16 of 'w.bin', which has 8 bytes"),
        ("w.bin", {"offset": "-4"}, "starts at byte -4 of 'w.bin'"),
        ("w" * 5000, {}, "cannot be read: File name too long"),
        ("w.bin", {"length": "800"}, "needs 8 bytes but its external data states 800"),
        ("w.bin", {"offset": "much"}, "external data offset or length"),
    ],
)
def test_external_data_out_of_place(
    tmp_path: Path, location: str, extra: dict[str, str], text: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 8)
    (folder / "w.bin").write_bytes(b"\0" * 8)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    path = folder / "m.onnx"
    path.write_bytes(external(location, **extra).SerializeToString())
    (problem,) = problems_of(path)
    assert text in problem


def test_external_data_needs_a_file() -> None:
    assert "pass the path of the model" in problems_of(external("w.bin"))[0]

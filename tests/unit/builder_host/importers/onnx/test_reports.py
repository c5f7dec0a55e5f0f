"""One report names every problem of a model; broken and hostile files never crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.onnx_models import model, problems_of

from builder_host.errors import ImportModelError
from builder_host.importers.onnx import import_onnx


def node(op_type: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def test_all_problems_of_a_model_are_in_one_report() -> None:
    nodes = [
        node("Convolution", "x w", "a", name="first"),
        node("Relu", "a", "b"),
        node("Softmax", "b", "c", axes=1),
        node("TfIdfVectorizer", "x w r", "d e"),
        node("Reshape", "x shape", "f"),
        node("Concat", "c d e f", "y", axis=1),
        node("TfIdfVectorizer", "f w r", "z"),
        node("Sum", "y z", "out"),
    ]
    constants = {
        "w": np.zeros((4, 3, 3, 3), np.float32),
        "r": np.zeros(1, np.float32),
        "shape": np.asarray([5, 5], np.int64),
    }
    broken = model(nodes, {"x": [1, 3, 8, 8]}, ["out"], constants)
    with pytest.raises(ImportModelError) as caught:
        import_onnx(broken)
    report = caught.value.problems
    assert len(report) == 4
    text = "\n".join(report)
    assert (
        "ONNX node 0 Convolution 'first': operator ai.onnx.Convolution (opset 13) is not "
        "supported; nearest supported: Conv"
    ) in text
    assert (
        "ONNX node 3 TfIdfVectorizer (2 nodes; also ONNX node 6 TfIdfVectorizer): operator "
        "ai.onnx.TfIdfVectorizer"
    ) in text
    assert (
        "ONNX node 2 Softmax: operator ai.onnx.Softmax version 13 has no attribute 'axes'; "
        "nearest: axis"
    ) in text
    assert "has 192 elements, shape (5, 5) takes 25" in text
    assert str(caught.value).startswith("ONNX model: 4 problems")


def test_unknown_version_of_an_operator_lists_those_supported() -> None:
    (problem,) = problems_of(model([node("Upsample", "x", "y")], {"x": [1]}, ["y"], opset=10))
    assert "means version 10 of the operator; supported are 1, 7, 9: convert" in problem


def test_opset_newer_than_the_onnx_package_is_refused() -> None:
    (problem,) = problems_of(model([node("Relu", "x", "y")], {"x": [1]}, ["y"], opset=999))
    assert "the model uses opset 999 of ai.onnx" in problem
    assert "upgrade it" in problem


@pytest.mark.parametrize(("op_type", "opset"), [("Scan", 7), ("Loop", 0), ("If", -1)])
def test_control_flow_that_the_opset_does_not_have(op_type: str, opset: int) -> None:
    (problem,) = problems_of(model([node(op_type, "x", "y")], {"x": [1]}, ["y"], opset=opset))
    assert problem == f"ONNX node 0 {op_type}: {op_type} is no operator of opset {opset}"


def test_foreign_domain_is_named() -> None:
    fused = helper.make_node("FusedThing", ["x"], ["y"], domain="com.example")
    (problem,) = problems_of(model([fused], {"x": [1]}, ["y"], domains=["com.example"]))
    assert "operator com.example.FusedThing (opset 1) is not supported" in problem
    (problem,) = problems_of(model([fused], {"x": [1]}, ["y"]))
    assert "the model imports no opset of domain 'com.example'" in problem


def test_missing_attribute_and_wrong_counts() -> None:
    text = "\n".join(problems_of(model([node("Concat", "x", "y")], {"x": [1]}, ["y"])))
    assert "the required attribute 'axis' is missing" in text
    text = "\n".join(problems_of(model([node("Relu", "x x", "y")], {"x": [1]}, ["y"])))
    assert "takes 1 to 1 inputs, got 2" in text


def test_wrong_attribute_type_and_value() -> None:
    conv = node("Softmax", "x", "y", axis=1.5)
    assert (
        "attribute 'axis' must be an integer, got FLOAT"
        in problems_of(model([conv], {"x": [1, 2]}, ["y"]))[0]
    )
    pool = node("MaxPool", "x", "y", kernel_shape=[2, 2], auto_pad="SOMETIMES")
    assert (
        "auto_pad='SOMETIMES' is not supported; one of: NOTSET"
        in problems_of(model([pool], {"x": [1, 1, 4, 4]}, ["y"]))[0]
    )


def test_attribute_that_no_rule_reads_is_not_ignored() -> None:
    pad = node("Pad", "x pads", "y", mode="wrap")
    constants = {"pads": np.asarray([1, 1], np.int64)}
    (problem,) = problems_of(model([pad], {"x": [3]}, ["y"], constants, opset=13))
    assert "attribute mode='wrap' is not supported; one of: constant, reflect, edge" in problem


def test_unsupported_nodes_behind_the_outputs_do_not_matter() -> None:
    nodes = [node("Relu", "x", "a"), node("TfIdfVectorizer", "a a a", "b")]
    network = import_onnx(model(nodes, {"x": [2]}, ["b"]), outputs=["a"])
    assert [t.name for t in network.outputs] == ["a"]


def test_unknown_output_lists_values() -> None:
    (problem,) = problems_of(model([node("Relu", "x", "y")], {"x": [2]}, ["y"]), outputs=["q"])
    assert problem == "output 'q' is no value of the graph; the last ones are: y"


def test_value_that_must_be_known_is_explained() -> None:
    nodes = [node("Cast", "x", "s", to=TensorProto.INT64), node("Reshape", "x s", "y")]
    (problem,) = problems_of(model(nodes, {"x": [2]}, ["y"]))
    assert problem == (
        "ONNX node 1 Reshape: input 1 (shape) must be known at build time, but 's' is computed "
        "from the network's inputs; fold it when exporting"
    )


# --- hostile and broken files ------------------------------------------------------------


def test_cycle_is_named() -> None:
    nodes = [node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")]
    problems = problems_of(model(nodes, {"x": [1]}, ["y"]))
    assert problems == (
        "3 nodes depend on each other in a cycle: ONNX node 0 Add, ONNX node 1 Relu, "
        "ONNX node 2 Relu; a network must be acyclic",
    )


def test_unsorted_nodes_are_put_in_order() -> None:
    nodes = [node("Relu", "a", "y"), node("Neg", "x", "a")]
    network = import_onnx(model(nodes, {"x": [1]}, ["y"]))
    assert [layer.kind for layer in network.layers] == ["unary", "activation"]


def test_missing_input_and_double_names() -> None:
    text = "\n".join(problems_of(model([node("Add", "x q", "y")], {"x": [1]}, ["y"])))
    assert "ONNX node 0 Add: input 'q' is produced by no node, input or initialiser" in text
    twice = [node("Relu", "x", "y"), node("Neg", "x", "y")]
    text = "\n".join(problems_of(model(twice, {"x": [1]}, ["y"])))
    assert "ONNX node 1 Neg: value 'y' is produced twice" in text


def test_initialiser_with_damaged_size() -> None:
    broken = model([node("Add", "x w", "y")], {"x": [4]}, ["y"], {"w": np.zeros(4, np.float32)})
    broken.graph.initializer[0].dims[:] = [2**62, 4]
    (problem,) = problems_of(broken)
    assert "initialiser 'w' of shape (4611686018427387904, 4)" in problem
    assert "but holds 16" in problem
    broken.graph.initializer[0].dims[:] = [-4]
    assert "negative dimension -4" in problems_of(broken)[0]


def test_initialiser_of_a_type_without_tensors() -> None:
    broken = model([node("Add", "x w", "y")], {"x": [1]}, ["y"])
    broken.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"a"]))
    assert "has element type STRING" in problems_of(broken)[0]
    broken.graph.initializer[0].data_type = 77
    assert "has element type number 77" in problems_of(broken)[0]


def test_computed_constant_of_absurd_size_is_refused() -> None:
    fill = node("ConstantOfShape", "s", "y")
    constants = {"s": np.asarray([2**20, 2**20], np.int64)}
    (problem,) = problems_of(model([fill], {}, ["y"], constants))
    assert "needs 4,398,046,511,104 bytes, the limit is 2,147,483,648" in problem
    spread = node("Expand", "w s", "y")
    constants["w"] = np.zeros(1, np.float32)
    (problem,) = problems_of(model([spread], {}, ["y"], constants))
    assert "the limit is 2,147,483,648" in problem


@pytest.mark.parametrize("cut", [0, 1, 7, 100, -1])
def test_truncated_file(tmp_path: Path, cut: int) -> None:
    whole = model(
        [node("Add", "x w", "y")], {"x": [64]}, ["y"], {"w": np.ones(64, np.float32)}
    ).SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[:cut])
    with pytest.raises(ImportModelError) as caught:
        import_onnx(path)
    assert str(caught.value).startswith(str(path))


def test_file_that_is_missing_or_no_model(tmp_path: Path) -> None:
    assert "No such file" in problems_of(tmp_path / "absent.onnx")[0]
    assert "no ONNX" in problems_of(b"\x00\x01garbage")[0]


def test_every_byte_of_a_small_model_may_be_damaged() -> None:
    whole = bytearray(
        model(
            [node("Reshape", "x s", "a"), node("Softmax", "a", "y", axis=1)],
            {"x": [2, 3]},
            ["y"],
            {"s": np.asarray([3, 2], np.int64)},
        ).SerializeToString()
    )
    for place in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            try:
                import_onnx(bytes(damaged))
            except ImportModelError as error:
                assert error.problems  # noqa: PT017


def test_every_unsupported_node_is_named() -> None:
    nodes = [node("TfIdfVectorizer", "x", f"y{i}", name=f"count {i}") for i in range(9)]
    nodes.append(node("Sum", " ".join(f"y{i}" for i in range(9)), "y"))
    text = "\n".join(problems_of(model(nodes, {"x": [2]}, ["y"])))
    assert all(f"ONNX node {i} TfIdfVectorizer 'count {i}'" in text for i in range(9))

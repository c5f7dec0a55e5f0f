"""Graph features: branches, functions, aliases, outputs, names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.onnx_models import FLOAT, model, problems_of

from builder_host.importers.onnx import import_onnx
from builder_host.importers.onnx.registry import nearest_operators, rules, supported_versions
from builder_host.network.evaluate import evaluate_network


def node(op_type: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def branch(op_type: str, inputs: str) -> onnx.GraphProto:
    made = helper.make_tensor_value_info("r", FLOAT, None)
    return helper.make_graph([node(op_type, inputs, "r")], op_type, [], [made])


def choice(condition: str) -> onnx.NodeProto:
    return node(
        "If", condition, "y", then_branch=branch("Neg", "x"), else_branch=branch("Abs", "x")
    )


@pytest.mark.parametrize(("value", "expected"), [(True, [-1.0, 2.0]), (False, [1.0, 2.0])])
def test_known_condition_inlines_one_branch(value: bool, expected: list[float]) -> None:
    made = model([choice("c")], {"x": [2]}, ["y"], {"c": np.asarray(value)})
    network = import_onnx(made)
    assert len(network.layers) == 1
    assert network.layers[0].origin.startswith("ONNX node 0 If > ONNX node 0 ")
    got = evaluate_network(network, {"x": np.asarray([1.0, -2.0 if value else 2.0])})
    assert got["y"].tolist() == expected


def test_condition_from_shape_arithmetic_is_known() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Size", "s", "rank"),
        node("Equal", "rank four", "c"),
        choice("c"),
    ]
    network = import_onnx(model(nodes, {"x": [1, 2]}, ["y"], {"four": np.asarray(4)}))
    assert [layer.params.op for layer in network.layers] == ["abs"]


def test_condition_that_depends_on_inputs_is_refused() -> None:
    nodes = [node("Cast", "x", "c", to=TensorProto.BOOL), choice("c")]
    (problem,) = problems_of(model(nodes, {"x": [1]}, ["y"]))
    assert "ONNX node 1 If: the condition must be one value known at build time" in problem


def test_problem_inside_a_branch_names_both_nodes() -> None:
    bad = node("If", "c", "y", then_branch=branch("Nothing", "x"), else_branch=branch("Abs", "x"))
    (problem,) = problems_of(model([bad], {"x": [2]}, ["y"], {"c": np.asarray(True)}))
    assert problem.startswith("ONNX node 0 If > ONNX node 0 Nothing: operator ai.onnx.Nothing")


def scaled_function() -> onnx.FunctionProto:
    scale = node("Constant", "", "k")
    scale.input[:] = []
    reference = onnx.AttributeProto(name="value_float", type=onnx.AttributeProto.FLOAT)
    reference.ref_attr_name = "factor"
    scale.attribute.append(reference)
    return helper.make_function(
        "local",
        "Scaled",
        ["a"],
        ["b"],
        [scale, node("Mul", "a k", "b")],
        [helper.make_opsetid("", 13)],
        ["factor"],
    )


def test_local_function_is_expanded_with_its_attributes() -> None:
    nodes = [
        helper.make_node("Scaled", ["x"], ["b"], domain="local", factor=3.0),
        helper.make_node("Scaled", ["b"], ["y"], domain="local", factor=0.5),
    ]
    made = model(nodes, {"x": [2]}, ["y"], functions=[scaled_function()], domains=["local"])
    network = import_onnx(made)
    assert [layer.outputs[0].name for layer in network.layers] == ["b", "y"]
    assert evaluate_network(network, {"x": np.asarray([1.0, -2.0])})["y"].tolist() == [1.5, -3.0]


def test_function_that_calls_itself_is_refused() -> None:
    inner = helper.make_node("Loops", ["a"], ["b"], domain="local")
    opsets = [helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Loops", ["a"], ["b"], [inner], opsets)
    outer = helper.make_node("Loops", ["x"], ["y"], domain="local")
    problems = problems_of(
        model([outer], {"x": [1]}, ["y"], functions=[function], domains=["local"])
    )
    assert len(problems) == 1
    assert "nest deeper than 32 levels" in problems[0]


def test_operator_without_a_rule_expands_by_its_schema() -> None:
    made = model([node("CenterCropPad", "x s", "y")], {"x": [5]}, ["y"], {"s": [3]}, opset=18)
    got = evaluate_network(import_onnx(made), {"x": np.arange(5.0)})["y"]
    assert got.tolist() == [1.0, 2.0, 3.0]


def test_aliases_of_one_tensor_as_several_outputs() -> None:
    nodes = [node("Relu", "x", "a"), node("Identity", "a", "b"), node("Dropout", "x", "c")]
    network = import_onnx(model(nodes, {"x": [2]}, ["b", "a", "c"]))
    assert [t.name for t in network.outputs] == ["b", "a", "c"]
    got = evaluate_network(network, {"x": np.asarray([-1.0, 2.0])})
    assert [got[n].tolist() for n in "bac"] == [[0, 2], [0, 2], [-1, 2]]


def test_input_as_output_is_refused() -> None:
    (problem,) = problems_of(model([], {"x": [2]}, ["x"]))
    assert problem == "output 'x': it is an input as well; a network must compute its outputs"


def test_constant_output_keeps_its_name() -> None:
    network = import_onnx(model([node("Shape", "x", "y")], {"x": [2, 3]}, ["y"]))
    assert evaluate_network(network, {"x": np.zeros((2, 3))})["y"].tolist() == [2, 3]


def test_inputs_that_are_initialisers_are_constants() -> None:
    made = model([node("Add", "x w", "y")], {"x": [1], "w": [1]}, ["y"], {"w": np.float32([2])})
    network = import_onnx(made)
    assert [t.name for t in network.inputs] == ["x"]


def test_chosen_outputs_drop_unused_inputs() -> None:
    nodes = [node("Relu", "x", "a"), node("Add", "a z", "y")]
    network = import_onnx(model(nodes, {"x": [1], "z": [1]}, ["y"]), outputs=["a"])
    assert [t.name for t in network.inputs] == ["x"]
    assert [t.name for t in network.outputs] == ["a"]


def test_gather_of_one_channel_becomes_a_slice() -> None:
    made = model([node("Gather", "x i", "y", axis=0)], {"x": [2, 3]}, ["y"], {"i": np.asarray(1)})
    assert [layer.kind for layer in import_onnx(made).layers] == ["slice", "reshape"]


def test_same_model_gives_the_same_network() -> None:
    nodes = [node("LayerNormalization", "x s", "y"), node("Softmax", "y", "z")]
    made = model(nodes, {"x": [2, 3]}, ["z"], {"s": np.ones(3, np.float32)}, opset=17)
    first, second = (
        [(y.kind, y.name, y.params, [t.name for t in y.inputs]) for y in import_onnx(made).layers]
        for _ in range(2)
    )
    assert first == second


def test_registry_knows_versions_and_similar_names() -> None:
    assert supported_versions("", "Slice") == (1, 10, 11, 13)
    assert nearest_operators("Convolution")[0] == "Conv"
    assert nearest_operators("leakyrelu")[0] == "LeakyRelu"
    assert all(rule.translate.__doc__ for rule in rules().values())

"""Loops, scans, sequences and optionals against ONNX Runtime, which runs them step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from support.onnx_models import FLOAT, model, problems_of

from builder_host.importers.onnx import graph as graph_module
from builder_host.importers.onnx import import_onnx
from builder_host.network.evaluate import evaluate_network


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    names = [("" if n == "-" else n) for n in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), **attributes)


def body(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.GraphProto:
    kinds = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "more": TensorProto.BOOL}
    return helper.make_graph(
        list(nodes),
        "body",
        [
            helper.make_tensor_value_info(n, kinds.get(n, FLOAT), [] if n in kinds else None)
            for n in inputs
        ],
        [helper.make_tensor_value_info(n, kinds.get(n, FLOAT), None) for n in outputs],
    )


SUM = body(
    [
        node("Identity", "go", "more"),
        node("Cast", "i", "f", to=FLOAT),
        node("Mul", "x f", "t"),
        node("Add", "a t", "next"),
        node("Neg", "next", "row"),
    ],
    ["i", "go", "a"],
    ["more", "next", "row"],
)
X = np.asarray([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)


def check(made: onnx.ModelProto) -> Any:
    network = import_onnx(made)
    got = evaluate_network(network, {"x": X})
    made.ir_version = 10
    wanted = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": X})
    for output, want in zip(made.graph.output, wanted, strict=True):
        assert got[output.name].shape == np.shape(want)
        np.testing.assert_allclose(got[output.name], want, rtol=1e-6)
    return network


@pytest.mark.parametrize("opset", [11, 13, 16, 21])
@pytest.mark.parametrize("inputs", ["n -", "n yes"])
def test_loop_is_unrolled_with_carried_and_stacked_values(opset: int, inputs: str) -> None:
    nodes = [node("Loop", f"{inputs} x", "last rows", body=SUM)]
    constants = {"n": np.asarray(3), "yes": np.asarray(True)}
    network = check(model(nodes, {"x": X.shape}, ["last", "rows"], constants, opset=opset))
    assert any("Loop > iteration 2 > ONNX node 2 Mul" in y.origin for y in network.layers)


def test_loop_ends_when_its_own_condition_says_so() -> None:
    counting = body(
        [
            node("Less", "i two", "more"),
            node("Add", "a x", "next"),
        ],
        ["i", "go", "a"],
        ["more", "next"],
    )
    nodes = [node("Loop", "- yes x", "last", body=counting)]
    constants = {"two": np.asarray(2), "yes": np.asarray(True)}
    check(model(nodes, {"x": X.shape}, ["last"], constants))


def test_loops_that_depend_on_inputs_or_never_end_are_refused() -> None:
    to_count = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "n", to=7)]
    by_input = [*to_count, node("Loop", "n - x", "last rows", body=SUM)]
    (problem,) = problems_of(model(by_input, {"x": X.shape}, ["last"]))
    assert "Loop: input 0 (trip count) must be known at build time" in problem
    by_condition = body(
        [
            node("ReduceMax", "a", "m", keepdims=0),
            node("Cast", "m", "more", to=9),
            node("Neg", "a", "next"),
        ],
        ["i", "go", "a"],
        ["more", "next"],
    )
    yes = {"yes": np.asarray(True)}
    nodes = [node("Loop", "- yes x", "last", body=by_condition)]
    (problem,) = problems_of(model(nodes, {"x": X.shape}, ["last"], yes))
    assert "the condition after iteration 0 must be one value known at build time" in problem
    endless = [node("Loop", "- yes x", "last rows", body=SUM)]
    (problem,) = problems_of(model(endless, {"x": X.shape}, ["last"], yes))
    assert "longer than 4,096 iterations" in problem


def test_unrolling_is_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "_MAX_NODES", 20)
    nodes = [node("Loop", "n - x", "last rows", body=SUM)]
    made = model(nodes, {"x": X.shape}, ["last"], {"n": np.asarray(100)})
    (problem,) = problems_of(made)
    assert "unroll to more than 20 nodes" in problem


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scan_input_directions": [1]},
        {"scan_output_directions": [1]},
        {"scan_input_axes": [1]},
        {"scan_output_axes": [1]},
    ],
)
def test_scan_is_unrolled_along_its_axes_and_directions(options: dict[str, Any]) -> None:
    running = body(
        [node("Add", "s r", "next"), node("Mul", "next r", "p")], ["s", "r"], ["next", "p"]
    )
    extent = X.shape[1 - options.get("scan_input_axes", [0])[0]]
    nodes = [node("Scan", "start x", "last rows", body=running, num_scan_inputs=1, **options)]
    start = {"start": np.zeros(extent, np.float32)}
    check(model(nodes, {"x": X.shape}, ["last", "rows"], start))


def test_sequences_fold_away() -> None:
    nodes = [
        node("SplitToSequence", "x", "parts", axis=1),
        node("SequenceAt", "parts minus", "end"),
        node("SequenceErase", "parts zero", "rest"),
        node("SequenceInsert", "rest end zero", "longer"),
        node("ConcatFromSequence", "longer", "y", axis=1),
        node("ConcatFromSequence", "longer", "z", axis=0, new_axis=1),
        node("SequenceLength", "longer", "count"),
        node("Cast", "count", "n", to=FLOAT),
    ]
    constants = {"minus": np.asarray(-1), "zero": np.asarray(0)}
    network = check(model(nodes, {"x": X.shape}, ["y", "z", "n"], constants))
    assert {layer.kind for layer in network.layers} <= {
        *("slice", "reshape", "concatenation", "pointwise")
    }


def test_sequences_travel_through_loops() -> None:
    collect = body(
        [
            node("Identity", "go", "more"),
            node("Cast", "i", "f", to=FLOAT),
            node("Mul", "x f", "t"),
            node("SequenceInsert", "s t", "next"),
        ],
        ["i", "go", "s"],
        ["more", "next"],
    )
    for value in (collect.input[2], collect.output[1]):
        value.type.CopyFrom(
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
        )
    nodes = [
        node("SequenceEmpty", "", "start"),
        node("Loop", "n - start", "s", body=collect),
        node("ConcatFromSequence", "s", "y", axis=0),
    ]
    nodes[0].input[:] = []
    check(model(nodes, {"x": X.shape}, ["y"], {"n": np.asarray(3)}, opset=16))


def test_optionals_fold_away() -> None:
    nodes = [
        node("Optional", "x", "o"),
        node("OptionalHasElement", "o", "is"),
        node("Cast", "is", "has", to=FLOAT),
        node("OptionalGetElement", "o", "inside"),
        node("Neg", "inside", "y"),
    ]
    check(model(nodes, {"x": X.shape}, ["y", "has"], opset=18))


def test_sequences_cannot_be_outputs_or_operands() -> None:
    nodes = [node("SequenceConstruct", "x x", "s"), node("Neg", "s", "y")]
    problems = problems_of(model(nodes, {"x": [2]}, ["s", "y"]))
    assert "Neg: input 0 is a sequence of 2 tensors; a tensor is needed" in problems[0]
    assert problems[1].startswith("output 's': it is a sequence of 2 tensors; a plan's outputs")
    empty = node("SequenceEmpty", "", "s")
    empty.input[:] = []
    at = model([empty, node("SequenceAt", "s c", "y")], {"x": [1]}, ["y"], {"c": np.asarray(0)})
    (problem,) = problems_of(at)
    assert "position (0,) is not in a sequence of 0 tensors" in problem

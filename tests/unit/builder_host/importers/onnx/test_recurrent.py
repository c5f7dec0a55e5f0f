"""ONNX LSTM, GRU and RNN, evaluated in float64, against ONNX Runtime in float32.

Tolerance: at most 6 steps with sums of at most 12 products of values below one: a few hundred
roundings of 6e-8, which recurrent gains below one do not raise: 2e-5 is wide.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from builder_host.errors import ImportModelError
from builder_host.importers.onnx.model import import_onnx
from builder_host.network.evaluate import evaluate_network

STEPS, BATCH, FEATURES, HIDDEN = 6, 3, 5, 7
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
TOLERANCE = 2e-5


def make_model(op, *, given=("B",), opset=14, live=False, **attributes):
    """A one-node model and its inputs; `given` names optional inputs of the node."""
    random = np.random.default_rng(5)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op] * HIDDEN
    batch_first = attributes.get("layout") == 1

    def uniform(*shape):
        return random.uniform(-0.6, 0.6, shape).astype(np.float32)

    def state():
        values = uniform(directions, BATCH, HIDDEN)
        return np.ascontiguousarray(values.swapaxes(0, 1)) if batch_first else values

    x = 2 * uniform(BATCH, STEPS, FEATURES) if batch_first else 2 * uniform(STEPS, BATCH, FEATURES)
    arrays = {
        "X": x,
        "W": uniform(directions, rows, FEATURES),
        "R": uniform(directions, rows, HIDDEN),
        "B": uniform(directions, 2 * rows),
        "sequence_lens": np.asarray([6, 2, 4], np.int32),
        "initial_h": state(),
        "initial_c": state(),
        "P": uniform(directions, 3 * HIDDEN),
    }
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
    order += ["initial_c", "P"] if op == "LSTM" else []
    used = [name if name in ("X", "W", "R", *given) else "" for name in order]
    while used[-1] == "":
        used.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(op, used, outputs, hidden_size=HIDDEN, **attributes)
    inputs = {name: arrays[name] for name in used if name and (live or name[0] not in "WRBP")}
    constants = [
        onnx.numpy_helper.from_array(arrays[name], name)
        for name in used
        if name and name not in inputs
    ]
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), inputs


def check(op, **options):
    model, inputs = make_model(op, **options)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, inputs)
    results = evaluate_network(import_onnx(model), inputs)
    for output, values in zip(session.get_outputs(), expected, strict=True):
        actual = results[output.name]
        assert actual.shape == values.shape
        np.testing.assert_allclose(actual, values, atol=TOLERANCE)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
def test_directions_with_every_optional_input(op, direction):
    given = ["B", "sequence_lens", "initial_h"]
    given += ["initial_c", "P"] if op == "LSTM" else []
    check(op, given=given, direction=direction)


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("LSTM", {"given": ()}),
        ("LSTM", {"opset": 7}),
        ("LSTM", {"live": True}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"clip": 0.4}),
        ("LSTM", {"given": ("B", "initial_c")}),
        ("GRU", {"linear_before_reset": 1, "direction": "bidirectional"}),
        ("GRU", {"linear_before_reset": 1, "given": ()}),
        ("GRU", {"live": True, "linear_before_reset": 1}),
        ("GRU", {"clip": 0.4}),
        ("RNN", {"activations": ["Relu"]}),
        ("RNN", {"clip": 0.3, "opset": 7}),
        (
            "RNN",
            {
                "activations": ["LeakyRelu", "Affine"],
                "activation_alpha": [0.2, 0.5],
                "activation_beta": [0.25],
                "direction": "bidirectional",
            },
        ),
        (
            "RNN",
            {"activations": ["ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [1.5]},
        ),
        ("RNN", {"activations": ["Softsign"]}),
        (
            "LSTM",
            {
                "activations": ["HardSigmoid", "Elu", "Softplus"],
                "activation_alpha": [0.3, 0.9],
                "activation_beta": [0.4],
            },
        ),
        ("GRU", {"activations": ["Sigmoid", "ThresholdedRelu"], "activation_alpha": [0.1]}),
    ],
    ids=str,
)
def test_attributes(op, options):
    check(op, **options)


@pytest.mark.parametrize("op", GATES)
def test_batch_first_is_the_transposed_form(op):
    """ONNX Runtime refuses layout 1, so the same model in layout 0 is the reference."""
    given = ("B", "initial_h", "initial_c") if op == "LSTM" else ("B", "initial_h")
    batched, inputs = make_model(op, given=given, layout=1)
    plain, _ = make_model(op, given=given)
    results = evaluate_network(import_onnx(batched), inputs)
    swapped = {name: values.swapaxes(0, 1) for name, values in inputs.items()}
    expected = evaluate_network(import_onnx(plain), swapped)
    np.testing.assert_array_equal(results["Y"], expected["Y"].transpose(2, 0, 1, 3))
    for name in list(expected)[1:]:
        np.testing.assert_array_equal(results[name], expected[name].swapaxes(0, 1))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"activations": ["Sigmoid", "Gelu", "Tanh"]}, "activation 'Gelu' is not supported"),
        ({"activations": ["Tanh"]}, "activations has 1 names, LSTM needs 3"),
        ({"activation_alpha": [0.5]}, "without activations"),
    ],
)
def test_what_cannot_be_is_said(options, says):
    model, _ = make_model("LSTM", **options)
    with pytest.raises(ImportModelError, match=says):
        import_onnx(model)


def test_wrong_shape_names_what_was_expected():
    model, _ = make_model("GRU")
    model.graph.initializer[1].CopyFrom(
        onnx.numpy_helper.from_array(np.zeros((1, 21, 6), np.float32), "R")
    )
    with pytest.raises(ImportModelError, match=r"recurrent has shape \(1, 21, 6\), expected"):
        import_onnx(model)

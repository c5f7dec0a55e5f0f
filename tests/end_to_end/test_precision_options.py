"""`--layer-precision`, `--tensor-precision` and float16 overflow, from the command to the plan."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.emulated_gpu import edgeplan_with_gpu

from planformat.details import plan_details
from planformat.reader import open_plan
from runtime_edge.cli import main

RANGES = ["--range=x=4", "--range=a=8", "--range=b=16", "--range=head=32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Three convolutions in a row, 8 channels each; the last one is the head."""
    rng = np.random.default_rng(1)
    names = [("conv1", "x", "a"), ("conv2", "a", "b"), ("head_conv", "b", "head")]
    nodes, weights = [], []
    for name, source, result in names:
        nodes.append(helper.make_node("Conv", [source, f"w_{name}"], [f"{result}_"], name=name))
        nodes.append(helper.make_node("Relu", [f"{result}_"], [result], name=f"relu_{name}"))
        values = rng.normal(0, 0.3, (8, 8, 1, 1)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w_{name}"))
    nodes.append(helper.make_node("GlobalAveragePool", ["head"], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 6, 6])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 1, 1])]
    graph = helper.make_graph(nodes, "three", inputs, outputs, weights)
    path = tmp_path_factory.mktemp("precision") / "m.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return path


def stored(plan):
    """Element type by the model's name of each operation's output, and of what each one reads."""
    with open_plan(plan) as opened:
        details = plan_details(opened.plan)
        rows = details.variants[0][0].operations
        written = {t.model_name: t.layout.split(":")[1] for o in rows for t in o.outputs}
        read = {o.outputs[0].model_name: o.inputs[0].layout.split(":")[1] for o in rows}
    return written, read


def cpu_build(model, plan, *options):
    command = ["build", model, "-o", plan, "--measure", "none", *options]
    return main([str(part) for part in command])


def test_patterns_on_a_cpu(model, tmp_path, capsys):
    plan = tmp_path / "m.plan"
    int8 = ["--precision", "int8", *RANGES]
    assert cpu_build(model, plan, *int8) == 0
    assert "3 layers multiply 8-bit integers" in capsys.readouterr().out
    written, read = stored(plan)
    assert (written["a"], written["b"], read["head"]) == ("u8", "u8", "u8")
    # by layer name, by the output's name, by pattern; the last match counts
    for rule in ("head_conv=fp32", "head=fp32", "*=fp32,conv?=int8"):
        assert cpu_build(model, plan, *int8, "--layer-precision", rule) == 0
        assert "2 layers multiply 8-bit integers" in capsys.readouterr().out
        written, read = stored(plan)
        assert (written["a"], read["head"], written["head"]) == ("u8", "f32", "f32")
    # the other way round: one layer in INT8 in a float32 plan
    assert cpu_build(model, plan, *RANGES, "--layer-precision", "conv2=int8") == 0
    assert "1 layer multiplies 8-bit integers" in capsys.readouterr().out
    assert stored(plan)[1]["b"] in ("i8", "u8")
    assert stored(plan)[1]["head"] == "f32"


def test_least_precision_of_a_tensor_on_a_cpu(model, tmp_path):
    plan = tmp_path / "m.plan"
    int8 = ["--precision", "int8", *RANGES]
    assert cpu_build(model, plan, *int8, "--tensor-precision", "b=fp16") == 0
    written, read = stored(plan)
    assert (written["a"], read["b"]) == ("u8", "u8")
    assert (written["b"], read["head"]) == ("f32", "f32")  # a CPU plan has no float16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer-precision", "conv9=fp32"], "no layer matches 'conv9'"),
        (["--tensor-precision", "nowhere=fp32"], "no tensor matches 'nowhere'"),
        (["--layer-precision", "conv1=fp8"], "precision 'fp8' for 'conv1' is unknown"),
        (["--layer-precision", "conv1"], "'conv1' is not PATTERN=PRECISION"),
        (["--precision", "fp16"], "fp16 needs a CUDA target"),
    ],
)
def test_rules_that_cannot_be_kept(model, tmp_path, capsys, options, message):
    assert cpu_build(model, tmp_path / "m.plan", *options) == 1
    assert message in capsys.readouterr().err


def test_patterns_and_overflow_on_a_gpu(model, tmp_path):
    """float16 with one layer and one tensor in float32; samples that float16 cannot hold."""
    plan = tmp_path / "m.plan"
    common = ["build", model, "-o", plan, "--target", "cuda", "--measure", "none"]

    def built(*options):
        status, text, error = edgeplan_with_gpu(*common, *options)
        return status, text + error

    status, text = built("--precision", "fp16")
    assert status == 0, text
    assert "whether values overflow float16 was not looked for" in text
    written, read = stored(plan)
    assert (written["a"], written["b"], read["head"]) == ("f16", "f16", "f16")
    status, text = built("--precision", "fp16", "--layer-precision", "*head*=fp32")
    assert status == 0, text
    with open_plan(plan) as opened:
        rows = plan_details(opened.plan).variants[0][0].operations
        weights = {o.outputs[0].model_name: o.inputs[1].layout.split(":")[1] for o in rows[:3]}
    # the last one computes with float32 weights and hands float16 to the pooling behind it
    assert weights == {"a": "f16", "b": "f16", "head": "f32"}
    status, text = built("--precision", "fp16", "--tensor-precision", "b=fp32")
    assert status == 0, text
    assert (stored(plan)[0]["b"], stored(plan)[1]["head"]) == ("f32", "f32")
    np.save(tmp_path / "x.npy", np.full((2, 8, 6, 6), 3e5, np.float32))
    data = ["--calibration-data", tmp_path / "x.npy"]
    status, text = built("--precision", "fp16", *data)
    assert status == 1
    assert "overflow float16, which ends at 65504" in text
    assert "network input 'x' reaches 3e+05" in text
    assert "layer 'a_': tensor 'a' reaches 1.431e+05" in text
    status, text = built("--precision", "best", "--layer-precision", "*=fp16", *data)
    assert status == 0, text
    assert "kept in float32: layer 'a_': tensor 'a' reaches" in text
    assert stored(plan)[0]["a"] == "f32"

"""`edgeplan compare` on real plans: good ones, one with a bad range, and wrong pairs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.cases import DATA, load
from support.emulated_gpu import edgeplan_with_gpu

import builder_host as bh
from builder_host.accuracy import step_outputs
from builder_host.accuracy.step_outputs import StepReader, parse_layout
from builder_host.errors import TargetError
from builder_host.layouts import dense_layout
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat
from planformat.errors import PlanFormatError
from runtime_edge.cli import main

LENET = DATA / "caffe/lenet"
MODEL, WEIGHTS = str(LENET / "lenet.prototxt"), str(LENET / "lenet_iter_9000.caffemodel")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with 20 digits and an artifact store."""
    place = tmp_path_factory.mktemp("compare")
    digits = load("images/mnist/t10k_first1000.npz#images")[:20].reshape(-1, 1, 28, 28)
    np.savez(place / "digits.npz", data=(digits / 256).astype(np.float32))
    return place


def built(folder, name, **options):
    network = bh.import_caffe(MODEL, WEIGHTS, shapes={"data": (1, 1, 28, 28)})
    config = bh.BuilderConfig(measure="none", artifact_dir=folder / "artifacts", **options)
    plan = bh.build(network, config)
    plan.save(folder / name)
    return plan.plan


RANGES = {"data": 1.0, "conv1": 3.6, "pool1": 3.6, "conv2": 13.5, "ip1": 10.5}


def test_float_plan_is_good_in_every_layer(folder, capsys):
    built(folder, "float.plan")
    assert main(["compare", MODEL, str(folder / "float.plan"), "--weights", WEIGHTS, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    # a convolution and the pooling behind it may be one kernel, whose larger map is never stored
    stored = [y["tensor"] for y in result["layers"] if y["tensor"] not in ("conv1", "conv2")]
    assert stored == ["pool1", "pool2", "ip1", "ip2", "prob"]
    assert result["first_bad"] is None
    assert all(y["sqnr_db"] is None or y["sqnr_db"] > 100 for y in result["layers"])


def test_int8_plan_and_one_with_a_range_that_is_far_too_small(folder, capsys):
    built(folder, "good.plan", precision="int8", dynamic_ranges=RANGES)
    built(folder, "bad.plan", precision="int8", dynamic_ranges={**RANGES, "conv2": 0.5})
    data = ["--data", str(folder / "digits.npz"), "--weights", WEIGHTS]
    assert main(["compare", MODEL, str(folder / "good.plan"), *data, "--json"]) == 0
    good = json.loads(capsys.readouterr().out)
    assert good["num_samples"] == 20
    by_name = {y["tensor"]: y for y in good["layers"]}
    assert {y["dtype"] for y in by_name.values()} == {"i8", "u8", "f32"}
    # 7 bits give 6.02 * 7 + 1.76 dB for a sine that fills the range; real data fills a third
    assert all(25 < y["sqnr_db"] < 60 for y in by_name.values())
    page = folder / "bad.html"
    assert main(["compare", MODEL, str(folder / "bad.plan"), *data, "--html", str(page)]) == 1
    text = capsys.readouterr().out
    assert "first bad layer: 'conv2'" in text
    assert "<b>conv2</b>" in page.read_text()
    picture = page.read_text().split("<svg", 1)[1].split("</svg>")[0]
    bars = ET.fromstring("<svg" + picture + "</svg>")
    assert len(bars.findall("{http://www.w3.org/2000/svg}rect")) == 7


def test_step_outputs_end_with_what_the_plan_returns(folder):
    plan = built(folder, "one.plan", precision="int8", dynamic_ranges=RANGES)
    digit = np.load(folder / "digits.npz")["data"][:1]
    with StepReader(plan) as reader:
        found = list(reader.outputs({"data": digit}))
        again = list(reader.outputs({"data": digit}))
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    assert found[-1].model_name == "prob"
    import runtime_edge

    context = runtime_edge.load(str(folder / "one.plan")).create_context()
    expected = context.execute({"data": digit})["prob"]
    np.testing.assert_array_equal(found[-1].values, expected)
    assert found[0].values.dtype == np.int8


def test_an_engine_that_cannot_be_loaded_leaves_none_of_the_others_open(folder, monkeypatch):
    plan = built(folder, "float.plan")
    load_engine = step_outputs.load_engine
    opened, closed = [], []

    def second_fails(partial):
        if opened:
            raise TargetError("no memory for the second part")
        engine = load_engine(partial)
        opened.append(engine.close)
        monkeypatch.setattr(engine, "close", lambda: closed.append(opened[0]()))
        return engine

    monkeypatch.setattr(step_outputs, "MAX_PROFILES", 2)  # several engines for a short plan
    monkeypatch.setattr(step_outputs, "load_engine", second_fails)
    with pytest.raises(bh.BuilderError, match="no memory for the second part"):
        StepReader(plan)
    assert len(opened) == len(closed) == 1


def test_wrong_pairs_are_refused(folder, capsys):
    plan = built(folder, "float.plan")
    other = str(DATA / "onnx/mnist/mnist-8.onnx")
    assert main(["compare", other, str(folder / "float.plan")]) == 1
    assert "input" in capsys.readouterr().err
    with pytest.raises(bh.BuilderError, match="the plan has no details"):
        StepReader(replace(plan, details=b""))
    with pytest.raises(PlanFormatError, match="section 'details'"):
        StepReader(replace(plan, details=b"{"))
    assert main(["compare", MODEL, str(folder / "float.plan"), "--samples", "3"]) == 1
    assert "belong to --data" in capsys.readouterr().err


@pytest.mark.parametrize("fmt", [TensorFormat.LINEAR, TensorFormat.NHWC, TensorFormat.NCHW16C])
def test_layout_texts_are_read_back(fmt):
    layout = dense_layout(TensorType((1, 20, 3, 5), DataType.UINT8), fmt)
    assert parse_layout(layout.text()) == layout
    strided = replace(layout, strides=(9999, *layout.strides[1:]))
    assert parse_layout(strided.text()) == strided
    scalar = dense_layout(TensorType((), DataType.FLOAT32))
    assert parse_layout(scalar.text()) == scalar
    for text in ("", "1x2:f99:LINEAR", "1x2:f32:NOWHERE", "1x2:f32:NCHW16C"):
        with pytest.raises(bh.BuilderError, match="is no tensor layout"):
            parse_layout(text)


def tiny_model(path):
    """A convolution of 8 channels, a maximum pooling, a matrix product and a softmax, as ONNX."""
    rng = np.random.default_rng(3)

    def array(name, *shape):
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pool", "w2"], ["second"]),
        helper.make_node("Flatten", ["second"], ["flat"]),
        helper.make_node("Gemm", ["flat", "m"], ["scores"]),
    ]
    weights = [array("w", 8, 4, 3, 3), array("b", 8), array("w2", 16, 8, 1, 1), array("m", 256, 5)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))


@pytest.mark.parametrize(
    ("precision", "lowest_db"),
    [
        pytest.param("fp32", 100.0, marks=pytest.mark.slow),
        pytest.param("fp16", 50.0, marks=pytest.mark.slow),
        ("int8", 25.0),
    ],
)
def test_cuda_plan_layer_by_layer(tmp_path, capsys, precision, lowest_db):
    """Built for the stand-in GPU and read from its memory while emulated threads run it.

    8 bits over five deviations: 20 log10(127 / 5 * sqrt(12)) = 39 dB per tensor; a third is left
    for weights and for what adds up over three layers.
    """
    model, plan = tmp_path / "tiny.onnx", tmp_path / "tiny.plan"
    tiny_model(model)
    options = ["--target", "cuda", "--precision", precision, "--measure", "none"]
    if precision == "int8":
        for name, largest in {"x": 4.5, "relu": 8.0, "second": 12.0}.items():
            options += ["--range", f"{name}={largest}"]
    status, _, error = edgeplan_with_gpu("build", model, "-o", plan, *options)
    assert status == 0, error
    np.save(tmp_path / "x.npy", np.random.default_rng(5).normal(0, 0.9, (3, 4, 8, 8)))
    data = ["--data", tmp_path / "x.npy", "--json"]
    status, text, error = edgeplan_with_gpu("compare", model, plan, *data)
    assert status == 0, error
    result = json.loads(text)
    assert result["num_samples"] == 3
    tensors = {row["tensor"] for row in result["layers"]}
    assert {"second", "scores"} <= tensors
    assert tensors & {"relu", "pool"}  # the kernel of the first layer may take the pooling along
    for row in result["layers"]:
        assert row["sqnr_db"] is None or row["sqnr_db"] > lowest_db, row
    stored = {row["dtype"] for row in result["layers"]}
    assert {"fp32": "f32", "fp16": "f16", "int8": "i8"}[precision] in stored
    # the same file on a machine without that GPU
    assert main(["compare", str(model), str(plan)]) == 1
    assert "layers are read where the plan runs" in capsys.readouterr().err

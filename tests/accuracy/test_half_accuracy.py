"""float16 storage, emulated: what it loses on real data, and values that it cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import DATA, load
from support.cuda_toolkits import need_toolkit

import builder_host as bh
from builder_host.accuracy.compare import compare_emulated
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from builder_host.passes import narrow_float
from builder_host.passes.pipeline import run_passes
from runtime_edge.cli import main

BATCH = 100


def lenet() -> Network:
    folder = DATA / "caffe/lenet"
    return bh.import_caffe(
        folder / "lenet.prototxt",
        folder / "lenet_iter_9000.caffemodel",
        shapes={"data": (BATCH, 1, 28, 28)},
    )


def test_lenet_loses_less_than_a_tenth_of_a_point():
    """990 of 1000 digits are right in float32; one more or less is a tenth of a point."""
    network = lenet()
    run_passes(network)
    narrow_float.run(network)
    images = load("images/mnist/t10k_first1000.npz#images").reshape(-1, 1, 28, 28) / 256
    labels = load("images/mnist/t10k_first1000.npz#labels")
    right = 0
    for start in range(0, 1000, BATCH):
        (scores,) = evaluate_network(
            network, {"data": images[start : start + BATCH]}, rounds_storage=True
        ).values()
        right += int((scores.argmax(axis=1) == labels[start : start + BATCH]).sum())
    assert right >= 990


def test_layers_of_lenet_stay_near_the_precision_of_float16():
    images = load("images/mnist/t10k_first1000.npz#images")[:BATCH].reshape(-1, 1, 28, 28) / 256
    comparison = compare_emulated(lenet(), images)
    assert [y.tensor for y in comparison.layers] == [
        "conv1", "pool1", "conv2", "pool2", "ip1", "ip2", "prob",
    ]  # fmt: skip
    # one rounding is 2^-12 of a value, 72 dB; inputs and weights of four layers add to that
    assert all(60 < y.sqnr_db < 90 for y in comparison.layers)
    assert comparison.first_bad is None


@pytest.fixture
def overflowing(tmp_path):
    """A model whose second convolution stores 8e5, and data for it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = {"a": np.full((2, 1, 1, 1), 100.0), "b": np.full((1, 2, 1, 1), 1000.0)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["first"]),
        helper.make_node("Conv", ["first", "b"], ["second"]),
        helper.make_node("MaxPool", ["second"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Mul", ["pool", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "overflow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
        + [numpy_helper.from_array(np.float32(1e-6).reshape(1), "c")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), tmp_path / "m.onnx"
    )
    np.save(tmp_path / "x.npy", np.full((3, 1, 4, 4), 4.0, np.float32))
    return tmp_path


def test_overflow_is_found_at_build_time_and_a_rule_avoids_it(overflowing, capsys):
    """Cross-built for a GPU board: no kernel runs here, sample data shows the values."""
    need_toolkit()
    model, data = str(overflowing / "m.onnx"), str(overflowing / "x.npy")
    common = [
        "build", model, "-o", str(overflowing / "m.plan"), "--target", "jetson-agx-orin",
        "--precision", "fp16", "--measure", "none", "--calibration-data", data,
    ]  # fmt: skip
    assert main(common) == 1
    error = capsys.readouterr().err
    assert "1 of the network's values overflow float16, which ends at 65504" in error
    assert "reaches 8e+05" in error
    rule = error.split("--tensor-precision '")[1].split("'")[0]
    assert rule.endswith("=fp32")
    assert main([*common, "--tensor-precision", rule]) == 0
    # best keeps such layers in float32 by itself, also from the table that the samples gave
    table, plans = overflowing / "t.cache", [overflowing / name for name in ("one", "two")]
    for plan in plans:
        options = [v for v in common if v not in ("fp16", str(overflowing / "m.plan"))]
        options[options.index("-o")] = f"-o{plan}"
        options[options.index("--precision")] = "--precision=best"
        assert main([*options, "--calibration", str(table)]) == 0
        assert "kept in float32: layer" in capsys.readouterr().out
    assert plans[0].read_bytes() == plans[1].read_bytes()
    assert "#largest: " in table.read_text()


def test_emulation_shows_the_infinite_layer(overflowing, capsys):
    model, data = str(overflowing / "m.onnx"), str(overflowing / "x.npy")
    assert main(["compare", model, "--emulate", "fp16", "--data", data]) == 1
    assert "first bad layer" in capsys.readouterr().out
    assert main(["compare", model, "--data", data]) == 1
    assert "name a plan, or --emulate fp16" in capsys.readouterr().err

"""INT8 plans for GPUs: chosen kernels, and results on emulated threads against CPU plans."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.cases import DATA, load
from support.cuda_toolkits import need_toolkit
from support.emulated_gpu import edgeplan_with_gpu
from support.onnx_models import model

from runtime_edge.cli import main

LENET = [str(DATA / "caffe/lenet" / f) for f in ("lenet.prototxt", "lenet_iter_9000.caffemodel")]
SQUEEZENET = [
    str(DATA / "caffe/squeezenet_v1.1" / f)
    for f in ("deploy.prototxt", "squeezenet_v1.1_fp16w.caffemodel")
]


def edgeplan(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


def families(report: str) -> list[str]:
    """Kernel families of a build, in order."""
    return [row["tactic"].partition("(")[0] for row in json.loads(report)["operations"]]


def quantised_model(dtype: int):
    """Q/DQ around a strided, a depthwise and a 1x1 convolution, an addition, a pooling, a product.

    Args:
        dtype: of the activations, TensorProto.INT8 or UINT8.
    """
    rng = np.random.default_rng(7)
    kind = np.int8 if dtype == TensorProto.INT8 else np.uint8
    known: dict[str, np.ndarray] = {"zero": np.zeros((), kind), "wzero": np.zeros((), np.int8)}
    nodes = []

    def quantised(name: str, scale: float) -> str:
        known[f"{name}.s"] = np.float32(scale)
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}.s", "zero"], [f"{name}.q"]))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}.q", f"{name}.s", "zero"], [f"{name}.r"])
        )
        return f"{name}.r"

    def weights(name: str, shape: tuple[int, ...]) -> list[str]:
        known[f"{name}.i"] = rng.integers(-127, 128, shape).astype(np.int8)
        known[f"{name}.s"] = np.float32(1.0 / (73 * math.sqrt(math.prod(shape[1:]))))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}.i", f"{name}.s", "wzero"], [name])
        )
        known[f"{name}.b"] = rng.normal(0.1, 0.2, shape[0]).astype(np.float32)
        return [name, f"{name}.b"]

    def convolution(x: str, out: str, shape: tuple[int, ...], **attributes: object) -> None:
        nodes.append(helper.make_node("Conv", [x, *weights(f"w{out}", shape)], [out], **attributes))

    a = quantised("x", 0.02)
    convolution(a, "c1", (64, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    nodes.append(helper.make_node("Relu", ["c1"], ["r1"]))
    b = quantised("r1", 0.02)
    convolution(b, "c2", (64, 1, 3, 3), pads=[1, 1, 1, 1], group=64)
    c = quantised("c2", 0.03)
    convolution(c, "c3", (64, 64, 1, 1))
    nodes.append(helper.make_node("Add", ["c3", b], ["sum"]))
    nodes.append(helper.make_node("Relu", ["sum"], ["r2"]))
    d = quantised("r2", 0.04)
    nodes.append(helper.make_node("MaxPool", [d], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]))
    e = quantised("pooled", 0.04)
    convolution(e, "c4", (40, 64, 3, 3), pads=[1, 1, 1, 1])
    nodes.append(helper.make_node("Flatten", ["c4"], ["flat"]))
    f = quantised("flat", 0.03)
    nodes.append(helper.make_node("Gemm", [f, *weights("wg", (10, 1440))], ["y"], transB=1))
    return model(nodes, {"x": (1, 3, 24, 24)}, ["y"], known, opset=13)


@pytest.mark.parametrize("dtype", [TensorProto.INT8, TensorProto.UINT8], ids=["i8", "u8"])
def test_quantised_model_gives_the_bits_of_the_cpu(tmp_path, capsys, dtype):
    """Sums are exact and epilogues round operation by operation on both devices."""
    path, cpu, gpu = tmp_path / "q.onnx", tmp_path / "cpu.plan", tmp_path / "gpu.plan"
    path.write_bytes(quantised_model(dtype).SerializeToString())
    options = ["--precision", "fp32", "--measure", "none"]
    edgeplan("build", path, "-o", cpu, *options)
    capsys.readouterr()
    status, text, error = edgeplan_with_gpu(
        "build", path, "-o", gpu, "--target", "cuda", "--json", *options
    )
    assert status == 0, error
    chosen = families(text)
    assert {"cuda_conv_int8", "cuda_gemm_int8", "cuda_pooling"} <= set(chosen), chosen
    x = tmp_path / "x.npy"
    np.save(x, np.random.default_rng(3).normal(0.3, 0.9, (1, 3, 24, 24)).astype(np.float32))
    edgeplan("run", cpu, "--input", f"x={x}", "--output-dir", tmp_path / "on_cpu")
    status, _, error = edgeplan_with_gpu(
        "run", gpu, "--input", f"x={x}", "--output-dir", tmp_path / "on_gpu"
    )
    assert status == 0, error
    wanted, got = np.load(tmp_path / "on_cpu/y.npy"), np.load(tmp_path / "on_gpu/y.npy")
    assert len(np.unique(wanted)) == 10
    assert got.tobytes() == wanted.tobytes(), np.abs(got - wanted).max()


def test_lenet_on_the_stand_in_gives_what_the_cpu_gives(tmp_path, capsys):
    """Digits in 8 bits: the same classes, logits apart by less than the grain of 8 bits.

    ip1's result is UINT8 on CPUs and INT8 on GPUs: half a step of 1/127 against one of 1/255.
    """
    images = load("images/mnist/t10k_first1000.npz#images").reshape(-1, 1, 28, 28)
    np.savez(tmp_path / "x.npz", x=images[:30].astype(np.float32) / np.float32(256))
    table, cpu, gpu = tmp_path / "t.cache", tmp_path / "cpu.plan", tmp_path / "gpu.plan"
    shapes = ["--shapes", "data:3x1x28x28"]
    edgeplan(
        "calibrate", *LENET, *shapes, "-o", table, "--data", tmp_path / "x.npz", "--signed",
        "--calibrator", "min-max",
    )  # fmt: skip
    options = ["--precision", "int8", "--measure", "none", "--calibration", table]
    edgeplan("build", *LENET, *shapes, "-o", cpu, *options)
    capsys.readouterr()
    status, text, error = edgeplan_with_gpu(
        "build", *LENET, *shapes, "-o", gpu, "--target", "cuda", "--json", *options
    )
    assert status == 0, error
    wanted = {"cuda_conv_int8", "cuda_gemm_int8", "cuda_pooling"}
    assert wanted <= set(families(text)), text
    np.save(tmp_path / "three.npy", images[7:10].astype(np.float32) / np.float32(256))
    given = ["--input", f"data={tmp_path / 'three.npy'}", "--output-dir"]
    edgeplan("run", cpu, *given, tmp_path / "on_cpu")
    status, _, error = edgeplan_with_gpu("run", gpu, *given, tmp_path / "on_gpu")
    assert status == 0, error
    here, there = (np.load(tmp_path / d / "prob.npy") for d in ("on_cpu", "on_gpu"))
    assert (here.argmax(axis=1) == there.argmax(axis=1)).all()
    logits = [np.log(np.maximum(p, 1e-12)) for p in (here, there)]
    apart = np.linalg.norm(logits[0] - logits[1]) / np.linalg.norm(logits[0])
    assert 0 < apart < 0.5 / 127 + 0.5 / 255 + 2.0**-8  # two grains, and float16 logits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "wanted"),
    [("jetson-agx-orin", "cuda_conv_int8"), ("h200", "cuda_conv_int8"), ("t4", "cuda_conv_int8"),
     ("jetson-xavier-nx", "cuda_conv_dp4a")],
)  # fmt: skip
def test_squeezenet_is_built_with_the_kernels_for_integers(tmp_path, capsys, board, wanted):
    """Predicted builds for boards that are not here: no convolution is left to generated code."""
    need_toolkit()
    table = tmp_path / "t.cache"
    edgeplan(
        "calibrate", *SQUEEZENET, "-o", table, "--signed", "--calibrator", "min-max",
        "--data", DATA / "caffe/squeezenet_v1.1/four.in.npy",
    )  # fmt: skip
    capsys.readouterr()
    edgeplan(
        "build", *SQUEEZENET, "-o", tmp_path / "s.plan", "--target", board, "--precision", "int8",
        "--measure", "none", "--calibration", table, "--json",
    )  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    chosen = [
        row["tactic"].partition("(")[0]
        for row in report["operations"]
        if row["kind"] == "convolution"
    ]
    assert len(chosen) == 26
    assert set(chosen) <= {"cuda_conv_int8", "cuda_conv_dp4a"}
    assert chosen.count(wanted) >= 13, chosen

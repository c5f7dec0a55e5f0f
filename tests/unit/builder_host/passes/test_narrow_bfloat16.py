"""narrow_bfloat16: which tensors become bfloat16, values kept, and a plan that runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.integer_kernels import TARGETS, needs
from support.networks import assert_kept, convolution, kinds, random_inputs

import builder_host as bh
import runtime_edge as rt
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from builder_host.passes import narrow_bfloat16
from builder_host.passes.pipeline import run_passes
from builder_host.precision.rules import apply_precision
from planformat.datatypes import DataType

BF16, F32 = DataType.BFLOAT16, DataType.FLOAT32


def mixed_network() -> Network:
    """Convolutions, a depthwise one, a residual, pooling, joined branches, soft-max, a product."""
    network = Network("mixed")
    x = network.add_input("x", (1, 3, 34, 34))
    a = network.add_activation(convolution(network, x, 24, strides=2), "relu").output
    b = convolution(network, a, 24, groups=24, seed=3)
    a = network.add_elementwise(a, convolution(network, b, 24, 1, seed=5), "add").output
    a = network.add_pooling(a, "max", 3, strides=2, pads=1).output
    branches = [convolution(network, a, 17, 3, seed=7), convolution(network, a, 16, 1, seed=9)]
    a = network.add_concatenation(branches).output
    small = network.add_elementwise(a, np.full((1, 1, 1, 1), 1e-5, np.float32), "mul").output
    gate = network.add_softmax(small).output
    a = network.add_pooling(network.add_elementwise(a, gate, "mul").output, "average", 3).output
    volume = int(np.prod(a.shape[1:]))
    weights = np.random.default_rng(1).standard_normal((10, volume)).astype(np.float32)
    bias = np.ones(10, np.float32)
    result = network.add_fully_connected(a, 10, weights / np.float32(volume**0.5), bias).output
    network.mark_output(result, "y")
    network.mark_output(gate, "gate")
    return network


def test_products_and_what_lies_between_them_become_bfloat16() -> None:
    network = mixed_network()
    run_passes(network, None)
    num_products = narrow_bfloat16.run(network)
    assert num_products == sum(kind in narrow_bfloat16.PRODUCTS for kind in kinds(network)) >= 6
    for layer in network.layers:
        own = [t.dtype for t in layer.own_inputs]
        if layer.kind in narrow_bfloat16.PRODUCTS:
            assert own == [BF16, BF16]
            assert all(t.dtype is F32 for t in layer.operands if t.is_constant)
        elif layer.kind == "softmax":
            assert own == [F32]
    assert [t.dtype for t in (*network.inputs, *network.outputs)] == [F32, F32, F32]


def test_rules_keep_layers_in_float32() -> None:
    network = mixed_network()
    run_passes(network, None)
    names = [y.name for y in network.layers if y.kind == "convolution"]
    apply_precision(
        network,
        "bf16",
        device_kind="cpu",
        has_bf16=True,
        ranges=None,
        layer_rules=[(names[1], "fp32")],
    )
    for layer in network.layers:
        if layer.kind == "convolution":
            wanted = F32 if layer.name == names[1] else BF16
            assert {t.dtype for t in layer.own_inputs} == {wanted}


def test_values_are_kept_within_the_rounding_of_weights() -> None:
    """References compute in float64: only constants are rounded, to 8 bits."""
    network = mixed_network()
    run_passes(network, None)
    assert_kept(network, narrow_bfloat16.run, tolerance=2.0**-6)


def test_precision_bf16_is_refused_where_the_target_lacks_it() -> None:
    for device_kind, text in (("cuda", "no kernels for CUDA"), ("cpu", "AVX512-BF16")):
        with pytest.raises(bh.BuilderError, match=text):
            apply_precision(mixed_network(), "bf16", device_kind=device_kind, ranges=None)


def test_a_plan_in_bfloat16_runs(tmp_path: Path) -> None:
    """Errors of 2^-9 per stored value add up over about ten layers."""
    needs("avx512-vnni")
    assert TARGETS["avx512-vnni"].has_bf16_dot
    network = mixed_network()
    inputs = random_inputs(network)
    wanted = evaluate_network(network, inputs)
    config = bh.BuilderConfig(
        precision="bf16", measure="none", num_threads=2, artifact_dir=tmp_path / "store"
    )
    built = bh.build(network, config)
    tactics = " ".join(row.tactic for row in built.report.operations)
    for family in ("conv_bf16", "conv_depthwise", "pooling", "gemm_bf16"):
        assert family in tactics, tactics
    built.save(tmp_path / "bf16.plan")
    with rt.load(tmp_path / "bf16.plan") as engine, engine.create_context() as context:
        got = context.execute({"x": inputs["x"].astype(np.float32)})
    for name in ("y", "gate"):
        error = np.linalg.norm(got[name] - wanted[name]) / np.linalg.norm(wanted[name])
        assert error < 0.05, f"{name}: {error:.3g}"


def test_candidates_in_bfloat16_are_timed(tmp_path: Path) -> None:
    needs("avx512-vnni")
    network = Network("one")
    x = network.add_input("x", (1, 16, 4, 4))
    network.mark_output(convolution(network, x, 16, 1), "y")
    config = bh.BuilderConfig(precision="bf16", num_threads=1, artifact_dir=tmp_path)
    (row,) = (r for r in bh.build(network, config).report.operations if "conv_bf16" in r.tactic)
    assert row.measured_us is not None
    assert row.measured_us > 0

"""Products with few rows on emulated GPU threads against float64."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import compile_all, make_target, run
from support.typed_kernels import layout, problem

from builder_host.expressions import Binary, Const, Input, relu
from builder_host.kernels.cuda_gemm.family import FAMILY
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.network import Epilogue
from planformat.datatypes import DataType, TensorFormat

F32, F16 = DataType.FLOAT32, DataType.FLOAT16
LINEAR, NHWC = TensorFormat.LINEAR, TensorFormat.NHWC
HOPPER, NANO = make_target("90", 4), make_target("53", 1)


def fully_connected(
    rows, columns, shape, dtype, *, fmt=LINEAR, bias=True, residual=False, out=None, gap=0
):
    """A layer with a bias and perhaps a residual; random values of unit size."""
    depth = int(np.prod(shape))
    inputs = [layout((rows, *shape), fmt, dtype, gap), layout((columns, depth), LINEAR, dtype)]
    constant = [1]
    if bias:
        inputs.append(layout((columns,), LINEAR, dtype))
        constant.append(2)
    expr, count = Binary("mul", relu(Input(0)), Const(0.5)), 0
    if residual:
        inputs.append(layout((rows, columns), LINEAR, dtype, 3))
        expr, count = relu(Binary("add", Input(0), Input(1))), 1
    built = problem(
        "fully_connected",
        FullyConnectedParams(),
        inputs,
        [layout((rows, columns), LINEAR, out or dtype, gap)],
        constant=constant,
        epilogue=Epilogue(expr, count),
    )
    rng = np.random.default_rng(3)
    numpy_type = np.float16 if dtype is F16 else np.float32
    values = [rng.normal(0, 1, i.shape).astype(numpy_type) for i in inputs]
    wide = [v.astype(np.float64) for v in values]
    wanted = wide[0].reshape(rows, depth) @ wide[1].T
    wanted = wanted + wide[2] if bias else wanted
    wanted = np.maximum(wanted + wide[3], 0) if residual else np.maximum(wanted, 0) * 0.5
    return built, values, wanted


def check(result, wanted, depth):
    # Float32 sums of `depth` unit products; the result may be rounded to fp16.
    limit = 2.0**-24 * depth * 8 + (2.0**-11 * np.abs(wanted) if result.dtype == np.float16 else 0)
    assert np.isfinite(result).all()
    assert (np.abs(result - wanted) <= limit + 2.0**-23 * np.abs(wanted)).all()


@pytest.mark.parametrize("dtype", [F16, F32])
@pytest.mark.parametrize(
    ("rows", "columns", "shape"),
    [
        (1, 37, (520,)),
        (1, 10, (7,)),
        (3, 21, (6, 5, 4)),
        (8, 9, (67,)),
        (11, 18, (96,)),
        (70, 33, (129,)),
    ],
)
def test_every_tactic_matches_float64(dtype, rows, columns, shape):
    built, values, wanted = fully_connected(rows, columns, shape, dtype)
    for tactic in FAMILY.tactics(built, HOPPER):
        check(run(FAMILY, built, HOPPER, values, tactic)[0], wanted, int(np.prod(shape)))


@pytest.mark.parametrize("dtype", [F16, F32])
def test_channels_last_input_residual_and_odd_addresses(dtype):
    built, values, wanted = fully_connected(
        2, 13, (10, 3, 5), dtype, fmt=NHWC, residual=True, out=F32, gap=5
    )
    check(run(FAMILY, built, NANO, values, offset_elems=1)[0], wanted, 150)


@pytest.mark.parametrize("transpose", [False, True])
def test_product_with_a_constant_matrix(transpose):
    shape = (12, 50) if transpose else (50, 12)
    inputs = [layout((2, 3, 50)), layout(shape)]
    built = problem(
        "matrix_multiply",
        MatrixMultiplyParams(False, transpose),
        inputs,
        [layout((2, 3, 12))],
        constant=[1],
    )
    rng = np.random.default_rng(4)
    values = [rng.normal(0, 1, i.shape).astype(np.float32) for i in inputs]
    right = values[1].T if transpose else values[1]
    wanted = values[0].astype(np.float64) @ right.astype(np.float64)
    check(run(FAMILY, built, HOPPER, values)[0], wanted, 50)


@pytest.mark.parametrize("architecture", ["75", "87"])
def test_tensor_cores_of_older_gpus(architecture):
    built, values, wanted = fully_connected(5, 20, (100,), F16, residual=True)
    target = make_target(architecture)
    tactic = FAMILY.tactics(built, target)[0]
    assert "row_tiles" in tactic.values
    check(run(FAMILY, built, target, values, tactic, offset_elems=1)[0], wanted, 100)


def test_leaves_to_others_what_it_cannot_do():
    built, _, _ = fully_connected(1, 8, (16,), F16)
    assert FAMILY.applies(built, HOPPER)
    live = problem(built.kind, built.params, built.inputs, built.outputs, epilogue=built.epilogue)
    assert not FAMILY.applies(live, HOPPER)


@pytest.mark.parametrize("architecture", ["53", "61", "75", "87", "90"])
def test_compiles_for_gpus(architecture):
    target = make_target(architecture, 16)
    sources = []
    for dtype in (F16, F32):
        for rows in (1, 11):
            built, _, _ = fully_connected(rows, 1000, (2048,), dtype, residual=True)
            tactics = FAMILY.tactics(built, target)
            sources += [FAMILY.generate(built, t, target).source for t in tactics]
    assert len(compile_all(sources, architecture)) == len(sources)

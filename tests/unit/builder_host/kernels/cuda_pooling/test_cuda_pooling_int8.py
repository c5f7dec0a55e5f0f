"""Pooling of 8-bit images on emulated GPU threads: bits equal to exact maxima and sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.cuda_kernels import compile_programs, make_target, run
from support.integer_kernels import F32, I8, U8, finished, random_inputs, requantised
from support.typed_kernels import NUMPY_TYPES, layout, problem

from builder_host.expressions import Binary, Const, Input
from builder_host.kernels.cuda_pooling.family import FAMILY
from builder_host.kernels.family import Problem
from builder_host.network.layers import definition
from builder_host.network.layers.pooling import PoolingParams, divisors
from builder_host.network.network import Epilogue
from planformat.datatypes import DataType, TensorFormat

NHWC, LINEAR = TensorFormat.NHWC, TensorFormat.LINEAR
ORIN = make_target("87", 2)
WINDOWS = {
    "max": PoolingParams("max", (3, 3), (2, 2), (1, 1), (1, 1), (6, 5), (1, 1), False),
    "average": PoolingParams("average", (3, 3), (2, 2), (0, 1), (1, 1), (5, 5), (1, 1), False),
    "global": PoolingParams("average", (11, 9), (1, 1), (0, 0), (0, 0), (1, 1), (1, 1), False),
}


def build(
    name: str, channels: int, x: DataType, y: DataType, *, gap: int = 0, out: TensorFormat = NHWC
) -> Problem:
    params = WINDOWS[name]
    epilogue = None
    if params.mode == "average" or y is not x:
        value = Binary("mul", Input(0), Const(0.83))
        epilogue = Epilogue(requantised(value, 1.37, y), 0)
    image = layout((2, channels, 11, 9), NHWC, x, gap)
    result = layout((2, channels, *params.output_spatial), out, y, gap)
    return problem("pooling", params, [image], [result], epilogue=epilogue)


def check(built: Problem, **options: int) -> None:
    params = built.params
    (values,) = random_inputs(built)
    (real,) = definition("pooling").reference(params, [values.astype(np.float64)])
    folded = np.asarray(real).astype(np.float32)
    if params.mode == "average":
        counts = divisors(params, values.shape[2:]).astype(np.float32)
        sums = np.rint(np.asarray(real) * counts)  # whole numbers, exact in float64
        folded = sums.astype(np.float32) / counts
    wanted = finished(built, folded, [values])
    assert len(np.unique(wanted)) > 8
    for tactic in FAMILY.tactics(built, ORIN)[::3]:
        got = run(FAMILY, built, ORIN, [values], tactic, **options)[0]
        assert got.dtype == NUMPY_TYPES[built.outputs[0].dtype]
        assert got.tobytes() == wanted.tobytes(), f"{(got != wanted).sum()} values differ"


@pytest.mark.parametrize("name", sorted(WINDOWS))
@pytest.mark.parametrize("types", [(I8, I8), (U8, U8), (I8, F32)], ids=lambda t: t[1].text)
def test_tactics_give_the_exact_result(name: str, types: tuple[DataType, DataType]) -> None:
    check(build(name, 16, *types))


def test_odd_channels_views_and_addresses() -> None:
    check(build("max", 13, I8, I8, gap=3), offset_elems=5)
    check(build("global", 24, U8, F32, out=LINEAR))


def test_where_it_applies() -> None:
    assert FAMILY.applies(build("max", 16, I8, I8), ORIN)
    unclipped = Epilogue(Binary("mul", Input(0), Const(2.0)), 0)
    for epilogue in (None, unclipped):
        other = replace(build("max", 16, I8, U8), epilogue=epilogue)
        assert not FAMILY.applies(other, ORIN), "a result that may not fit 8 bits"


@pytest.mark.parametrize("architecture", ["53", "72", "87", "90"])
def test_compiles_for_gpus(architecture: str) -> None:
    target = make_target(architecture)
    programs = []
    for built in (build("max", 64, I8, I8), build("global", 64, U8, F32)):
        tactics = FAMILY.tactics(built, target)
        programs += [FAMILY.generate(built, tactic, target) for tactic in tactics]
    compile_programs(programs, architecture)

"""pooling_int8: bits equal to a maximum or an int64 sum, divided once, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support.integer_kernels import (
    F32,
    I8,
    NUMPY_TYPES,
    TARGETS,
    U8,
    finished,
    needs,
    random_inputs,
    requantised,
    run_tactic,
    with_gaps,
)

from builder_host.expressions import Binary, Input
from builder_host.kernels.family import Problem
from builder_host.kernels.pooling_int8.family import FAMILY
from builder_host.layouts import dense_layout
from builder_host.network.layers.pooling import PoolingParams, divisors, pooled_extent
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat


@dataclass(frozen=True)
class Pool:
    """One pooling; `y` other than the plain result's type needs an epilogue."""

    mode: str
    channels: int
    height: int
    width: int
    window: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    rounding: str = "floor"
    batch: int = 1
    x: DataType = I8
    y: DataType | None = None
    residual: DataType | None = None
    counts_pad: bool = False
    linear: bool = False
    has_gaps: bool = False
    workers: int = 1


CASES = [
    Pool("max", 64, 15, 15, (3, 3), (2, 2), rounding="ceil"),
    Pool("max", 20, 9, 14, (3, 2), (1, 1), (1, 1, 1, 0), x=U8, batch=2, workers=4),
    Pool("max", 33, 12, 7, (2, 3), (2, 1), dilations=(2, 2), pads=(1, 2, 1, 2), has_gaps=True),
    Pool("max", 17, 6, 6, (6, 6), y=F32, linear=True),
    Pool("max", 48, 8, 8, (2, 2), (2, 2), y=I8, residual=U8),
    Pool("average", 35, 13, 13, (13, 13), y=F32, linear=True),
    Pool("average", 64, 7, 7, (7, 7), y=U8, x=U8),
    Pool("average", 16, 9, 9, (3, 3), (2, 2), (1, 1, 1, 1), y=I8, residual=I8),
    Pool("average", 24, 9, 9, (3, 3), (1, 1), (1, 1, 1, 1), y=I8, counts_pad=True, has_gaps=True),
]


def problem_of(case: Pool, target: CpuTarget) -> Problem:
    """The problem in the target's blocked format; y row-major when `linear`."""
    blocked = target.blocked_format
    shape = (case.batch, case.channels, case.height, case.width)
    out = tuple(
        pooled_extent(size, window, stride, begin, end, dilation, case.rounding)  # type: ignore[arg-type]
        for size, window, stride, begin, end, dilation in zip(
            shape[2:], case.window, case.strides, case.pads[:2], case.pads[2:], case.dilations,
            strict=True,
        )
    )  # fmt: skip
    x = dense_layout(TensorType(shape, case.x), blocked)
    dtype = case.y or case.x
    y_type = TensorType((*shape[:2], *out), dtype)
    y = dense_layout(y_type, TensorFormat.LINEAR if case.linear else blocked)
    if case.has_gaps:
        x, y = with_gaps(x), with_gaps(y)
    inputs, constant, epilogue = [x], [False], None
    if case.y is not None:
        inputs.append(dense_layout(TensorType((case.channels, 1, 1))))
        constant.append(True)
        value = Binary("mul", Input(0), Input(1))
        if case.residual is not None:
            inputs.append(dense_layout(TensorType(y_type.shape, case.residual), blocked))
            constant.append(False)
            value = Binary("add", value, Input(2))
        epilogue = Epilogue(requantised(value, 1.37, dtype), len(inputs) - 1)
    params = PoolingParams(
        case.mode,  # type: ignore[arg-type]
        case.window,
        case.strides,
        case.pads[:2],
        case.pads[2:],
        out,
        case.dilations,
        case.counts_pad,
    )
    return Problem("pooling", params, tuple(inputs), tuple(constant), (y,), epilogue, case.workers)


def reference(problem: Problem, x: np.ndarray) -> np.ndarray:
    """Maximum in int64, or the sum as float32 divided by the number of cells."""
    params, (n, c, height, width) = problem.params, x.shape
    out_h, out_w = params.output_spatial
    result = np.zeros((n, c, out_h, out_w), np.int64)
    for oh in range(out_h):
        rows = [oh * params.strides[0] - params.pads_begin[0] + k * params.dilations[0]
                for k in range(params.window[0])]  # fmt: skip
        rows = [row for row in rows if 0 <= row < height]
        for ow in range(out_w):
            columns = [ow * params.strides[1] - params.pads_begin[1] + k * params.dilations[1]
                       for k in range(params.window[1])]  # fmt: skip
            columns = [column for column in columns if 0 <= column < width]
            cells = x[:, :, rows][:, :, :, columns].astype(np.int64)
            fold = cells.max if params.mode == "max" else cells.sum
            result[:, :, oh, ow] = fold(axis=(2, 3))
    if params.mode == "max":
        return result
    counts = divisors(params, (height, width)).astype(np.float32)
    return result.astype(np.float32) / counts


@pytest.mark.parametrize(
    "name",
    [
        "avx512-vnni",
        "avx2",
        pytest.param("neon", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.mode}-{c.channels}-{c.window}")
def test_gives_the_exact_result(case: Pool, name: str) -> None:
    needs(name)
    target = TARGETS[name]
    problem = problem_of(case, target)
    inputs = random_inputs(problem)
    if case.y is not None:
        scales = np.random.default_rng(1).uniform(0.2, 1.2, inputs[1].shape)
        inputs[1] = scales.astype(np.float32)
    exact = reference(problem, inputs[0])
    wanted = (
        finished(problem, exact, inputs)
        if problem.epilogue is not None
        else exact.astype(NUMPY_TYPES[problem.outputs[0].dtype])
    )
    for tactic in FAMILY.tactics(problem, target):
        got = run_tactic(FAMILY, problem, tactic, target, inputs)
        np.testing.assert_array_equal(got, wanted)
    assert len(np.unique(wanted)) > 10


def test_does_not_apply_to_floats_gaps_between_columns_or_unclipped_results() -> None:
    target = TARGETS["avx2"]
    plain = problem_of(CASES[0], target)
    assert FAMILY.applies(plain, target)
    unclipped = problem_of(Pool("average", 16, 7, 7, (7, 7), y=I8), target)
    assert FAMILY.applies(unclipped, target)
    loose = Epilogue(Binary("mul", Input(0), Input(1)), 1)
    params = (unclipped.params, unclipped.inputs, unclipped.is_constant, unclipped.outputs)
    assert not FAMILY.applies(Problem("pooling", *params, loose), target)
    floats = problem_of(Pool("max", 16, 7, 7, (7, 7), x=F32), target)
    assert not FAMILY.applies(floats, target)

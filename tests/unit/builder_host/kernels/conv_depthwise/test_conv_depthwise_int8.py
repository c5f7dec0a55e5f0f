"""conv_depthwise on 8-bit tensors: bits equal to int64 sums and a float32 epilogue."""

from __future__ import annotations

import pytest
from support.integer_kernels import (
    F32,
    I8,
    TARGETS,
    U8,
    Case8,
    convolution_problem,
    finished,
    integer_convolution,
    needs,
    random_inputs,
    run_tactic,
)

from builder_host.kernels.conv_depthwise.family import FAMILY

CASES = [
    Case8(40, 40, 14, 14, groups=40),
    Case8(32, 32, 15, 13, strides=(2, 2), groups=32, x=U8, y=U8, residual=I8, workers=3),
    Case8(20, 20, 9, 23, (5, 5), pads=(2, 2, 2, 2), groups=20, y=F32, raw=True, batch=2),
    Case8(
        16, 16, 9, 9, dilations=(2, 2), pads=(2, 0, 1, 2), groups=16, residual=F32, has_gaps=True
    ),
    Case8(8, 8, 4, 60, (1, 21), pads=(0, 25, 0, 20), groups=8, x=U8),
]


@pytest.mark.parametrize(
    "name",
    [
        "avx512-vnni",
        "avx2",
        pytest.param("neon", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_the_exact_result(case: Case8, name: str) -> None:
    needs(name)
    target = TARGETS[name]
    problem = convolution_problem(case, target)
    inputs = random_inputs(problem)
    wanted = finished(problem, integer_convolution(problem.params, *inputs[:2]), inputs)
    tactics = FAMILY.tactics(problem, target)
    for tactic in tactics[::2] if name == "avx512-vnni" else tactics[:1]:
        got = run_tactic(FAMILY, problem, tactic, target, inputs)
        assert got.tobytes() == wanted.tobytes(), f"{(got != wanted).sum()} values differ"


def test_windows_whose_sums_floats_do_not_hold_are_left_to_other_families() -> None:
    target = TARGETS["avx2"]
    for taps, expected in ((514, True), (515, False)):
        case = Case8(8, 8, 1, taps, (1, taps), pads=(0, 0, 0, 0), groups=8, x=U8)
        assert FAMILY.applies(convolution_problem(case, target), target) is expected

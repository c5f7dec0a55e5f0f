"""8-bit convolution by dot products, emulated: bits equal to int64 sums and a float32 epilogue."""

from __future__ import annotations

import pytest
from support.cuda_integers import check_convolution, cuda_problem
from support.cuda_kernels import compile_programs, make_target
from support.integer_kernels import F32, I8, U8, Case8

from builder_host.kernels.cuda_conv_dp4a.family import FAMILY

XAVIER = make_target("72", 8)
ORIN = make_target("87", 16)

CASES = [
    Case8(64, 48, 9, 10, (1, 1), pads=(0, 0, 0, 0), residual=I8),
    Case8(32, 40, 9, 11, x=U8, y=U8, residual=U8),
    Case8(3, 20, 19, 17, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3), y=F32, relu=False),
    Case8(12, 33, 9, 12, (5, 5), pads=(2, 2, 2, 2), dilations=(2, 3), batch=2),
    Case8(24, 30, 6, 7, x=U8, raw=True, y=F32),
    Case8(24, 36, 6, 6, groups=6),
    Case8(6, 6, 8, 8, groups=6, relu=False),
    Case8(16, 33, 6, 9, pads=(0, -1, 3, 0), strides=(1, 2)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_are_those_of_exact_sums(case: Case8) -> None:
    check_convolution(FAMILY, case, XAVIER)


def test_every_tile() -> None:
    case = Case8(40, 70, 9, 10, residual=I8)
    for tactic in FAMILY.tactics(cuda_problem(case), XAVIER):
        check_convolution(FAMILY, case, XAVIER, tactic)


@pytest.mark.parametrize("gap", [16, 4, 3])
def test_views_wherever_they_begin(gap: int) -> None:
    case = Case8(32, 32, 6, 6, residual=I8, has_gaps=True)
    check_convolution(FAMILY, case, ORIN, gap=gap, offset=gap)


def test_without_the_instruction() -> None:
    """sm_62 multiplies byte by byte: more work, the same bits."""
    case = Case8(32, 32, 5, 5, x=U8, y=U8)
    check_convolution(FAMILY, case, make_target("62", 2))
    problem = cuda_problem(case)
    slow = FAMILY.estimate_us(problem, make_target("62", 2))
    assert slow > FAMILY.estimate_us(problem, make_target("61", 2))


@pytest.mark.parametrize("architecture", ["53", "61", "62", "72", "75", "87", "90"])
def test_compiles_for_gpus(architecture: str) -> None:
    target = make_target(architecture)
    programs = []
    for case in (Case8(64, 64, 14, 14, residual=I8), Case8(3, 32, 32, 32, x=U8, y=U8)):
        problem = cuda_problem(case)
        tactics = FAMILY.tactics(problem, target)
        programs += [FAMILY.generate(problem, tactic, target) for tactic in tactics]
    compile_programs(programs, architecture)

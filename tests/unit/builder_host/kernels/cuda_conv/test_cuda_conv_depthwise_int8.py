"""INT8 depthwise convolution on emulated threads: bits equal to exact sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.cuda_integers import check_convolution, cuda_problem
from support.cuda_kernels import compile_programs, make_target
from support.integer_kernels import F32, I8, U8, Case8

from builder_host.kernels.cuda_conv_depthwise.family import FAMILY
from builder_host.kernels.family import Tactic

ORIN = make_target("87", 16)

CASES = [
    Case8(64, 64, 9, 10, groups=64, residual=I8),
    Case8(24, 24, 9, 9, groups=24, strides=(2, 2), y=F32),
    Case8(6, 6, 12, 7, (5, 5), pads=(2, 2, 2, 2), groups=6, relu=False),
    Case8(32, 32, 6, 6, groups=32, dilations=(2, 2), pads=(2, 2, 2, 2), has_gaps=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_are_those_of_exact_sums(case: Case8) -> None:
    tactics = FAMILY.tactics(cuda_problem(case), ORIN)
    for tactic in (tactics[0], tactics[-1]):
        check_convolution(FAMILY, case, ORIN, tactic)


def test_sixteen_channels_at_once() -> None:
    wide = Tactic(FAMILY.name, (("run", 2), ("threads", 64), ("vector", 16)))
    check_convolution(FAMILY, Case8(32, 32, 7, 7, groups=32), ORIN, wide)


def test_where_it_applies() -> None:
    assert FAMILY.applies(cuda_problem(Case8(32, 32, 7, 7, groups=32)), ORIN)
    unsigned = Case8(32, 32, 7, 7, groups=32, x=U8)
    assert not FAMILY.applies(cuda_problem(unsigned), ORIN), "weights have the type of x"
    large = Case8(8, 8, 40, 40, (33, 33), pads=(0, 0, 0, 0), groups=8)
    assert not FAMILY.applies(cuda_problem(large), ORIN), "sums beyond 2^24"
    source = replace(cuda_problem(large), kind="plugin", inputs=(), is_constant=())
    assert not FAMILY.applies(source, ORIN), "nothing is read"


@pytest.mark.parametrize("architecture", ["53", "61", "72", "87", "90"])
def test_compiles_for_gpus(architecture: str) -> None:
    target = make_target(architecture)
    problem = cuda_problem(Case8(64, 64, 14, 14, groups=64, residual=I8))
    tactics = FAMILY.tactics(problem, target)
    compile_programs([FAMILY.generate(problem, t, target) for t in tactics[:4]], architecture)

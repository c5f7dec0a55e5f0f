"""Convolution in tf32 on emulated threads against float64, and compiled for real GPUs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.cuda_convolutions import F32, RELU, Case, check, problem_of
from support.cuda_kernels import compile_all, make_target

from builder_host.kernels.cuda_conv_tf32.family import FAMILY

HOPPER = make_target("90", 132)
ORIN = make_target("87", 16)

CASES = [
    Case(64, 48, 9, 10, kernel=(1, 1), pads=(0, 0, 0, 0)),
    Case(4, 24, 12, 12, kernel=(7, 7), strides=(2, 2), pads=(3, 3, 3, 3), bias=False),
    Case(20, 30, 7, 6, dilations=(2, 1), pads=(2, 1, 2, 1), batch=2),
    Case(64, 64, 6, 6, groups=4, operands=("view", "scalar")),
    Case(32, 24, 6, 6, groups=2, view=5),
    Case(32, 32, 6, 6, view=8, operands=("gate", "image")),
    Case(16, 16, 5, 5, kernel=(4, 4), strides=(2, 2), extra=(1, 0)),
    Case(8, 135, 4, 4, pads=(-1, 0, 1, 1), expr=RELU),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_the_reference(case: Case) -> None:
    case = replace(case, dtype=F32, math="tf32")
    if case.view == 5:  # its columns do not begin at multiples of four floats
        assert not FAMILY.applies(problem_of(case), HOPPER)
        return
    check(FAMILY, case, HOPPER, FAMILY.tactics(problem_of(case), HOPPER)[0])


def test_every_tile() -> None:
    case = Case(40, 70, 13, 11, dtype=F32, math="tf32", operands=("full", "channel"))
    for tactic in FAMILY.tactics(problem_of(case), HOPPER):
        check(FAMILY, case, HOPPER, tactic)


def test_only_where_it_is_allowed() -> None:
    case = Case(64, 64, 8, 8, dtype=F32, math="tf32")
    assert FAMILY.applies(problem_of(case), ORIN)
    assert not FAMILY.applies(problem_of(replace(case, math="")), ORIN)
    assert not FAMILY.applies(problem_of(case), make_target("75"))
    assert not FAMILY.applies(problem_of(replace(case, channels=6)), ORIN)


@pytest.mark.parametrize("architecture", ["80", "87", "90"])
def test_compiles_for_gpus(architecture: str) -> None:
    target = make_target(architecture)
    problem = problem_of(Case(64, 64, 8, 8, dtype=F32, math="tf32"))
    sources = [FAMILY.generate(problem, t, target).source for t in FAMILY.tactics(problem, target)]
    assert len(compile_all(sources, architecture)) == len(sources)

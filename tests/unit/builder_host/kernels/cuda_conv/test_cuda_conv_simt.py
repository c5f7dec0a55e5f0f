"""Plain, first-layer and depthwise convolution on emulated threads, and compiled for real GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from support.cuda_convolutions import F32, LINEAR, RELU, Case, check, problem_of
from support.cuda_kernels import compile_all, make_target

from builder_host.kernels.cuda_conv_depthwise.family import FAMILY as DEPTHWISE
from builder_host.kernels.cuda_conv_first.family import FAMILY as FIRST
from builder_host.kernels.cuda_conv_simt.family import FAMILY as SIMT

NANO = make_target("53", 1)
HOPPER = make_target("90", 132)
TURING = make_target("75", 40)

ANY = [
    Case(64, 48, 9, 10, kernel=(1, 1), pads=(0, 0, 0, 0), dtype=F32),
    Case(3, 24, 12, 12, (7, 7), (2, 2), (3, 3, 3, 3), bias=False, x_format=LINEAR),
    Case(20, 30, 7, 6, dilations=(2, 1), pads=(2, 1, 2, 1), batch=2, dtype=F32),
    Case(64, 64, 6, 6, groups=4, operands=("view", "scalar")),
    Case(32, 24, 6, 6, groups=2, view=5),
    Case(32, 32, 6, 6, view=8, operands=("gate", "image"), dtype=F32),
    Case(16, 16, 5, 5, kernel=(4, 4), strides=(2, 2), extra=(1, 0)),
    Case(12, 8, 6, 6, groups=4, extra=(0, 0), strides=(3, 2), dtype=F32),
    Case(16, 16, 8, 8, x_format=LINEAR, y_format=LINEAR, operands=("full",)),
    Case(8, 136, 4, 4, pads=(-1, 0, 1, 1), expr=RELU),
    Case(12, 24, 8, 8, groups=4, operands=("channel", "full")),
    Case(6, 3, 5, 5, groups=3),
]
FIRSTS = [
    Case(3, 24, 20, 30, (7, 7), (2, 2), (3, 3, 3, 3), x_format=LINEAR),
    Case(3, 64, 9, 19, x_format=LINEAR, expr=RELU),
    Case(3, 32, 11, 17, x_format=LINEAR, x_dtype=F32),
    Case(1, 20, 28, 28, kernel=(5, 5), pads=(0, 0, 0, 0), batch=2),
    Case(4, 40, 12, 12, (4, 3), (1, 3), (1, 2, 0, 0), (2, 1), operands=("full",), view=8),
]
DEPTHWISES = [
    Case(32, 32, 9, 9, groups=32, operands=("full",)),
    Case(24, 24, 9, 8, groups=24, strides=(2, 2), dtype=F32, operands=("channel",)),
    Case(10, 10, 9, 8, (5, 3), pads=(2, 1, 2, 1), dilations=(1, 2), groups=10, batch=2),
    Case(16, 16, 9, 8, groups=16, view=8, operands=("view",)),
    Case(9, 9, 7, 8, groups=9, view=7),
]


@pytest.mark.parametrize("case", ANY, ids=str)
def test_simt(case: Case) -> None:
    found = SIMT.tactics(problem_of(case), NANO)
    kinds = {one.values.get("splits", 0): one for one in reversed(found)}
    for one in kinds.values():
        check(SIMT, case, NANO, one)


@pytest.mark.parametrize("case", FIRSTS, ids=str)
def test_first_layer(case: Case) -> None:
    found = FIRST.tactics(problem_of(case), TURING)
    for one in (found[0], found[-1]):
        check(FIRST, case, TURING, one)


@pytest.mark.parametrize("case", DEPTHWISES, ids=str)
def test_depthwise(case: Case) -> None:
    found = DEPTHWISE.tactics(problem_of(case), NANO)
    runs = {one.values["run"]: one for one in reversed(found)}
    for one in runs.values():
        check(DEPTHWISE, case, NANO, one)


@pytest.mark.parametrize(
    ("family", "case"),
    [(SIMT, Case(12, 12, 5, 5, view=7)), (DEPTHWISE, Case(16, 16, 5, 5, groups=16, view=8))],
)
def test_views_at_odd_addresses(family: Any, case: Case) -> None:
    check(family, case, NANO, offset=3)


def test_what_the_special_families_leave_to_others() -> None:
    assert not FIRST.applies(problem_of(Case(3, 8, 9, 9, dtype=F32)), TURING)
    assert not FIRST.applies(problem_of(Case(5, 8, 9, 9)), TURING)
    assert not FIRST.applies(problem_of(Case(3, 8, 9, 9, dilations=(1, 2))), TURING)
    assert not DEPTHWISE.applies(problem_of(Case(8, 16, 9, 9, groups=8)), TURING)
    for family in (SIMT, DEPTHWISE):
        assert not family.applies(problem_of(Case(8, 8, 9, 9, groups=8, x_dtype=F32)), TURING)
    linear = Case(8, 8, 9, 9, groups=8, x_format=LINEAR)
    assert not DEPTHWISE.applies(problem_of(linear), TURING)


@pytest.mark.parametrize(
    ("family", "cases", "architectures"),
    [(SIMT, ANY, ("53", "61")), (FIRST, FIRSTS, ("75", "90")), (DEPTHWISE, DEPTHWISES, ("53",))],
    ids=["simt", "first", "depthwise"],
)
def test_compiles_for_real_devices(
    family: Any, cases: list[Case], architectures: tuple[str, ...]
) -> None:
    for architecture in architectures:
        target = make_target(architecture, 8)
        problems = [problem_of(case) for case in cases[:6]]
        compile_all(
            [
                family.generate(problem, family.tactics(problem, target)[0], target).source
                for problem in problems
            ],
            architecture,
        )

"""cuda_conv_pool, cuda_conv_first_pool: emulated against float64, and against the kernels apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.cuda_convolutions import (
    F32,
    LINEAR,
    RELU,
    Array,
    Case,
    inputs_of,
    problem_of,
    tolerance,
)
from support.cuda_kernels import compile_programs, make_target, run
from support.pooled_convolutions import largest_of_windows, pooled, reference

from builder_host.expressions import Const, Input, leaky_relu
from builder_host.kernels.cuda_conv_first.family import FAMILY as FIRST_APART
from builder_host.kernels.cuda_conv_first_pool.family import FAMILY as FIRST
from builder_host.kernels.cuda_conv_igemm.family import FAMILY as APART
from builder_host.kernels.cuda_conv_pool.family import FAMILY as POOL
from builder_host.kernels.family import GridLaunch, Problem, Tactic

LEAKY = leaky_relu(Input(0), Const(0.1))
POOL_CASES = [
    Case(16, 32, 12, 20, expr=RELU),
    Case(24, 40, 9, 11, batch=2, operands=("channel",)),  # odd: a row and a column in no window
    Case(72, 136, 8, 8, bias=False),
    Case(8, 16, 10, 34, (5, 3), (1, 1), (2, 0, 1, 1), expr=LEAKY),
    Case(16, 8, 19, 17, (3, 3), (2, 2), (1, 1, 0, 1)),
    Case(16, 20, 14, 13, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), expr=RELU),
    Case(40, 64, 7, 18, (1, 1), pads=(0, 0, 0, 0)),
]
FIRST_CASES = [
    Case(3, 32, 18, 34, x_format=LINEAR, expr=LEAKY),
    Case(3, 70, 9, 11, batch=2, x_format=LINEAR, x_dtype=F32, operands=("channel",)),
    Case(4, 16, 21, 23, (7, 7), (2, 2), (3, 3, 3, 3), expr=RELU),
    Case(1, 8, 13, 12, (5, 5), (1, 1), (2, 0, 0, 2), x_format=LINEAR, bias=False),
]
ALL = [(POOL, case) for case in POOL_CASES] + [(FIRST, case) for case in FIRST_CASES]


def name_of(value: Any) -> str:
    return str(getattr(value, "name", value))


def error_of(family: Any, problem: Problem, inputs: list[Array], tactic: Tactic) -> float:
    """Largest error of an emulated tactic over the largest result."""
    wanted = reference(problem, inputs)
    got = run(family, problem, make_target("87"), inputs, tactic)[0].astype(np.float64)
    assert np.isfinite(got).all()
    return float(np.abs(got - wanted).max()) / max(float(np.abs(wanted).max()), 1.0)


@pytest.mark.parametrize(("family", "case"), ALL, ids=name_of)
def test_fused_kernels_match_the_reference(family: Any, case: Case) -> None:
    problem = pooled(problem_of(case))
    tactics = family.tactics(problem, make_target("87"))
    assert 1 <= len(tactics) <= 12
    # A maximum adds no error to that of the convolution.
    allowed = tolerance(replace(problem, kind="convolution"))
    for tactic in dict.fromkeys((tactics[0], tactics[-1])):
        error = error_of(family, problem, inputs_of(problem_of(case)), tactic)
        assert error <= allowed, f"{tactic.text}: error {error:.3g}, {allowed:.3g}"


@pytest.mark.parametrize("shape", range(9))
def test_every_tile(shape: int) -> None:
    for family, case in ((POOL, POOL_CASES[1]), (FIRST, FIRST_CASES[1])):
        problem = pooled(problem_of(case))
        tactics = family.tactics(problem, make_target("87"))
        if shape < len(tactics):
            error = error_of(family, problem, inputs_of(problem_of(case)), tactics[shape])
            assert error <= tolerance(replace(problem, kind="convolution")), tactics[shape].text


@pytest.mark.parametrize(
    ("family", "apart", "case"),
    [(POOL, APART, POOL_CASES[0]), (FIRST, FIRST_APART, FIRST_CASES[0])],
    ids=name_of,
)
def test_bits_are_those_of_the_two_kernels(family: Any, apart: Any, case: Case) -> None:
    """One chunk of channels: both add up tap after tap, then round what is largest."""
    target = make_target("87")
    whole = problem_of(case)
    problem = pooled(whole)
    inputs = inputs_of(whole)
    fused = run(family, problem, target, inputs)[0]
    # Without splits over warps or blocks, which would add up in another order.
    single = [
        tactic
        for tactic in apart.tactics(whole, target)
        if tactic.values.get("warps_k", 1) == tactic.values.get("splits", 1) == 1
    ]
    raw = run(apart, whole, target, inputs, single[0])[0]
    np.testing.assert_array_equal(fused, largest_of_windows(raw, fused.shape[2:]))


@pytest.mark.parametrize(("family", "case"), [(POOL, POOL_CASES[0]), (FIRST, FIRST_CASES[0])])
def test_output_may_be_a_part_of_a_wider_tensor(family: Any, case: Case) -> None:
    problem = pooled(problem_of(case))
    (y,) = problem.outputs
    _, c, h, w = y.shape
    wide = replace(y, strides=(h * w * (c + 8), 1, w * (c + 8), c + 8))
    problem = replace(problem, outputs=(wide,))
    target = make_target("87")
    for offset in (0, 4):
        inputs = inputs_of(problem_of(case))
        got = run(family, problem, target, inputs, offset_elems=offset)[0]
        error = np.abs(got.astype(np.float64) - reference(problem, inputs)).max()
        assert error <= 4 * tolerance(replace(problem, kind="convolution"))
        if family is POOL:
            break  # its x is aligned


def test_a_nan_is_the_largest() -> None:
    for family, case in ((POOL, POOL_CASES[0]), (FIRST, FIRST_CASES[0])):
        problem = pooled(replace(problem_of(case), epilogue=None))
        inputs = inputs_of(problem_of(case))
        inputs[0][0, 0, 0, 0] = np.nan
        got = run(family, problem, make_target("87"), inputs)[0]
        assert np.isnan(got[0, :, 0, 0]).all()
        assert np.isfinite(got[0, :, -1, -1]).all()


def test_what_does_not_apply() -> None:
    orin = make_target("87")
    problem = pooled(problem_of(POOL_CASES[0]))
    assert POOL.applies(problem, orin)
    assert not POOL.applies(problem, make_target("72"))  # no m16n8k16
    assert not POOL.applies(pooled(problem_of(replace(POOL_CASES[0], dtype=F32))), orin)
    assert not POOL.applies(pooled(problem_of(replace(POOL_CASES[0], view=8))), orin)
    assert not POOL.applies(pooled(problem_of(Case(12, 16, 8, 8))), orin)  # channels
    assert not POOL.applies(pooled(problem_of(Case(16, 16, 8, 8, groups=2))), orin)
    assert not FIRST.applies(problem, orin)
    full = problem_of(replace(POOL_CASES[0], operands=("full",)))
    assert not POOL.applies(pooled(full), orin)
    for change in ({"window": (3, 3)}, {"strides": (1, 1)}, {"output_spatial": (7, 10)}):
        pooling = replace(problem.params.pooling, **change)
        params = replace(problem.params, pooling=pooling)
        assert not POOL.applies(replace(problem, params=params), orin), change


@pytest.mark.parametrize("architecture", ["75", "80", "86", "87", "89", "90"])
def test_compiles_for_real_devices_without_spills(architecture: str) -> None:
    target = make_target(architecture, 16)
    programs = []
    for family, case in (
        (POOL, Case(64, 64, 224, 224, expr=RELU)),
        (POOL, Case(32, 64, 208, 208, expr=LEAKY)),
        (FIRST, Case(3, 32, 416, 416, x_format=LINEAR, x_dtype=F32, expr=LEAKY)),
    ):
        problem = pooled(problem_of(case))
        tactics = family.tactics(problem, target)
        programs += [family.generate(problem, tactic, target) for tactic in tactics[:2]]
    for program in programs:
        (launch,) = program.launches
        assert isinstance(launch, GridLaunch)
        assert launch.is_dependent == target.has_dependent_launch
    compile_programs(programs, architecture)

"""conv_int8: bits equal to int64 sums and a float32 epilogue, on each kind of dot product."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.integer_kernels import (
    F32,
    I8,
    TARGETS,
    U8,
    Case8,
    compiled,
    convolution_problem,
    finished,
    integer_convolution,
    needs,
    random_inputs,
    run_tactic,
)

from builder_host.expressions import Binary, Const, Expr, Input, Unary, clip
from builder_host.kernels.conv_int8.family import FAMILY
from builder_host.kernels.family import Tactic
from builder_host.network.network import Epilogue
from planformat.datatypes import DataType

# Emulated targets take seconds per kernel: a static program is linked and interpreted.
EXECUTED = [
    pytest.param(name, marks=pytest.mark.slow if name.startswith("neon") else ())
    for name in TARGETS
]
POINTWISE = {"kernel": (1, 1), "pads": (0, 0, 0, 0)}
CASES = [
    Case8(64, 64, 14, 14),
    Case8(32, 48, 9, 11, x=U8, y=U8, residual=U8),
    Case8(35, 40, 9, 11, residual=I8, relu=False),
    Case8(64, 48, 7, 7, residual=F32, y=F32, **POINTWISE),
    Case8(3, 20, 19, 23, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3), raw=True, y=F32),
    Case8(16, 48, 7, 7, residual=I8, has_gaps=True),
    Case8(20, 33, 17, 30, (5, 5), pads=(2, 2, 2, 2), dilations=(2, 3), batch=2, workers=4, x=U8),
    Case8(32, 32, 13, 13, strides=(2, 2), workers=3, **POINTWISE),
]
HARD_CASES = [
    Case8(64, 64, 10, 10, groups=2),
    Case8(24, 40, 10, 10, (3, 1), groups=4),
    Case8(12, 24, 9, 9, groups=12, x=U8),
    Case8(16, 16, 8, 8, pads=(-1, -1, -1, -1)),
    Case8(16, 16, 1, 1),
    Case8(16, 32, 6, 9, pads=(0, 2, 3, 0), strides=(1, 2), workers=8),
    Case8(17, 17, 33, 33, dilations=(12, 12), pads=(12, 12, 12, 12)),
    Case8(8, 8, 6, 40, (1, 21), pads=(0, 10, 0, 10)),
    Case8(8, 8, 6, 40, (1, 21), strides=(1, 3), pads=(0, 25, 0, 20), x=U8),
    Case8(8, 8, 3, 200, (1, 2), dilations=(1, 100), pads=(0, 50, 0, 50)),
]


def check(case: Case8, tactic: Tactic, name: str) -> None:
    """Equal bits, or the failure names how many differ."""
    target = TARGETS[name]
    problem = convolution_problem(case, target)
    inputs = random_inputs(problem)
    wanted = finished(problem, integer_convolution(problem.params, *inputs[:2]), inputs)
    got = run_tactic(FAMILY, problem, tactic, target, inputs)
    assert got.dtype == wanted.dtype
    wrong = np.argwhere(got.view(np.uint8) != wanted.view(np.uint8))
    assert got.tobytes() == wanted.tobytes(), f"{len(wrong)} bytes differ, first at {wrong[:3]}"


@pytest.mark.parametrize("name", EXECUTED)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tactics_give_the_exact_result(case: Case8, name: str) -> None:
    needs(name)
    target = TARGETS[name]
    tactics = FAMILY.tactics(convolution_problem(case, target), target)
    assert 1 <= len(tactics) <= 12
    for tactic in tactics[::3] if name == "avx512-vnni" else tactics[:1]:
        check(case, tactic, name)


@pytest.mark.parametrize("name", [EXECUTED[0], EXECUTED[3], EXECUTED[4]])
@pytest.mark.parametrize("case", HARD_CASES, ids=str)
def test_unusual_shapes(case: Case8, name: str) -> None:
    needs(name)
    target = TARGETS[name]
    check(case, FAMILY.tactics(convolution_problem(case, target), target)[0], name)


@pytest.mark.parametrize("x", [I8, U8], ids=lambda t: t.text)
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_padding_counts_as_zero_in_tiles_over_several_rows(rows: int, x: DataType) -> None:
    """A tap outside the image adds nothing, whichever sign the dot product reads."""
    needs("avx512-vnni")
    values = {"oc_blocks": 1, "order": "sets", "pixels": 7, "prefetch": 2048, "rows": rows}
    tactic = Tactic("conv_int8", tuple(sorted(values.items())))
    case = Case8(32, 32, 7, 7, (5, 5), pads=(2, 3, 2, 1), workers=2, raw=True, y=F32, x=x)
    check(case, tactic, "avx512-vnni")


@pytest.mark.parametrize("name", EXECUTED)
@pytest.mark.parametrize("x", [I8, U8], ids=lambda t: t.text)
def test_extreme_values_do_not_saturate(x: DataType, name: str) -> None:
    """All products at the ends of both ranges: 16-bit pair sums would overflow."""
    needs(name)
    target = TARGETS[name]
    problem = convolution_problem(Case8(64, 32, 5, 5, raw=True, y=F32, x=x), target)
    lowest, highest = (-128, 127) if x is I8 else (0, 255)
    tactic = FAMILY.tactics(problem, target)[0]
    for value, weight in ((lowest, -128), (highest, -128), (highest, 127), (lowest, 127)):
        inputs = random_inputs(problem)
        inputs[0][...], inputs[1][...] = value, weight
        got = run_tactic(FAMILY, problem, tactic, target, inputs)
        wanted = integer_convolution(problem.params, *inputs[:2])
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", TARGETS)
def test_compiles_for_every_target(name: str) -> None:
    target = TARGETS[name]
    for case in (CASES[0], CASES[1], HARD_CASES[1]):
        problem = convolution_problem(case, target)
        compiled(
            FAMILY.generate(problem, FAMILY.tactics(problem, target)[0], target).source, target
        )


def test_rounds_half_to_even_and_clips() -> None:
    """Sums 0 .. 7 times 0.5: ties go to the even neighbour; beyond the range they stop."""
    needs("avx512-vnni")
    target = TARGETS["avx512-vnni"]
    case = Case8(16, 16, 4, 4, y=I8, **POINTWISE)
    problem = convolution_problem(case, target)
    inputs = random_inputs(problem)
    inputs[0][...], inputs[1][...] = 0, 0
    inputs[0][0, 0] = np.arange(16, dtype=np.int8).reshape(4, 4) - 8
    inputs[1][:, 0, 0, 0] = np.arange(16, dtype=np.int8) - 8
    inputs[2][...], inputs[3][...] = 0.5 / np.float32(7.3), 0.0
    problem = replace(problem, epilogue=Epilogue(_half(64.0), 2))
    got = run_tactic(FAMILY, problem, FAMILY.tactics(problem, target)[0], target, inputs)
    sums = np.multiply.outer(np.arange(16) - 8, np.arange(16) - 8)
    wanted = np.clip(np.rint(sums * 0.5), -64, 64).reshape(1, 16, 4, 4)
    np.testing.assert_array_equal(got, wanted)


def _half(bound: float) -> Expr:
    return clip(Unary("round", Binary("mul", Input(0), Const(0.5))), -bound, bound)


def test_does_not_apply_where_a_result_could_leave_its_range() -> None:
    target = TARGETS["avx2"]
    problem = convolution_problem(Case8(16, 16, 8, 8), target)
    assert FAMILY.applies(problem, target)
    loose = Epilogue(Binary("mul", Input(0), Input(1)), 2)
    assert not FAMILY.applies(replace(problem, epilogue=loose), target)
    high = Epilogue(clip(Input(0), 0.0, 255.0), 2)
    assert not FAMILY.applies(replace(problem, epilogue=high), target)
    bare = replace(
        problem, epilogue=None, inputs=problem.inputs[:2], is_constant=problem.is_constant[:2]
    )
    assert not FAMILY.applies(bare, target)


def test_does_not_apply_where_sums_could_leave_int32() -> None:
    target = TARGETS["avx2"]
    for x, most in ((U8, 65793), (I8, 131071)):
        for terms, expected in ((most, True), (most + 1, False)):
            case = Case8(1, 8, 1, terms, (1, terms), pads=(0, 0, 0, 0), x=x)
            assert FAMILY.applies(convolution_problem(case, target), target) is expected

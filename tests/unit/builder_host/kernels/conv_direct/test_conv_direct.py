"""conv_direct: every tactic against the float64 reference, on each instruction set that runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.convolutions import RELU, Case, check, inputs_of, problem_of, reference
from support.cpu_kernels import AVX2, AVX512, NEON, Kernel, compile_source, runs_here

from builder_host.expressions import Binary, Const, Input, Select
from builder_host.kernels.conv_direct.family import FAMILY
from builder_host.kernels.conv_direct.geometry import balanced, convolution_of, row_tiles
from builder_host.kernels.conv_winograd.family import FAMILY as WINOGRAD
from builder_host.kernels.family import Problem, Program, Tactic
from builder_host.targets.target import CpuTarget

POINTWISE = {"kernel": (1, 1), "pads": (0, 0, 0, 0)}
LEAKY = Select(Binary("ge", Input(0), Const(0.0)), Input(0), Binary("mul", Input(0), Const(0.1)))
CASES = [
    Case(64, 64, 14, 14, expr=RELU),
    Case(35, 40, 9, 11, operands=("full",)),
    Case(16, 48, 7, 7, strided=True, operands=("strided", "channel", "scalar", "gate")),
    Case(64, 48, 7, 7, **POINTWISE),
    Case(32, 32, 13, 13, strides=(2, 2), bias=False, **POINTWISE),
    Case(20, 33, 17, 30, (5, 5), pads=(2, 2, 2, 2), dilations=(2, 3), batch=2, workers=4),
    Case(3, 5, 19, 23, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3), expr=LEAKY),
    Case(64, 64, 10, 10, groups=2),
    Case(16, 16, 8, 8, pads=(-1, -1, -1, -1)),
    Case(16, 16, 1, 1),
    Case(16, 32, 6, 9, pads=(0, 2, 3, 0), strides=(1, 2), workers=8),
]
HARD_CASES = [
    Case(24, 40, 10, 10, (3, 1), groups=4),
    Case(12, 24, 9, 9, groups=12),
    Case(40, 40, 6, 5, groups=5, batch=2, operands=("full",)),
    Case(17, 17, 33, 33, dilations=(12, 12), pads=(12, 12, 12, 12)),
    Case(8, 8, 6, 40, (1, 21), pads=(0, 10, 0, 10)),
    Case(8, 8, 6, 40, (1, 21), strides=(1, 3), pads=(0, 25, 0, 20)),
    Case(8, 8, 3, 200, (1, 2), dilations=(1, 100), pads=(0, 50, 0, 50)),
]


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON], ids=lambda t: t.isa)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tactics_match_the_reference(case: Case, target: CpuTarget) -> None:
    if not runs_here(target.isa):
        pytest.skip(f"this CPU does not run {target.isa}")
    tactics = FAMILY.tactics(problem_of(case, target), target)
    assert 1 <= len(tactics) <= 12
    for tactic in tactics[::3]:
        check(FAMILY, case, tactic, target)


@pytest.mark.parametrize("target", [AVX512, AVX2], ids=lambda t: t.isa)
@pytest.mark.parametrize("case", HARD_CASES, ids=str)
def test_shapes_that_no_other_family_takes(case: Case, target: CpuTarget) -> None:
    if not runs_here(target.isa):
        pytest.skip(f"this CPU does not run {target.isa}")
    check(FAMILY, case, FAMILY.tactics(problem_of(case, target), target)[0], target)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_tiles_over_several_rows(rows: int) -> None:
    if not runs_here("avx512"):
        pytest.skip("this CPU does not run avx512")
    values = {"oc_blocks": 1, "order": "sets", "pixels": 7, "prefetch": 0, "rows": rows}
    tactic = Tactic("conv_direct", tuple(sorted(values.items())))
    check(FAMILY, Case(32, 32, 7, 7, workers=2), tactic, AVX512)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], HARD_CASES[0]], ids=str)
def test_compiles_for_neon(case: Case) -> None:
    problem = problem_of(case, NEON)
    for tactic in FAMILY.tactics(problem, NEON)[:2]:
        compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)


@pytest.mark.parametrize("name", ["conv_direct", "conv_winograd"])
def test_lane_wise_products(name: str) -> None:
    """What only NEON uses: x is loaded as a vector. Here it is switched on for AVX2."""
    if not runs_here("avx2"):
        pytest.skip("this CPU does not run avx2")
    family = {"conv_direct": FAMILY, "conv_winograd": WINOGRAD}[name]

    class LaneWise:
        """The family with VECTOR_LANES set."""

        applies, pack = family.applies, family.pack

        def generate(self, problem: Problem, tactic: Tactic, target: CpuTarget) -> Program:
            program = family.generate(problem, tactic, target)
            source = program.source.replace("#define VECTOR_LANES 0", "#define VECTOR_LANES 1")
            assert source != program.source
            return replace(program, source=source)

    case = Case(32, 24, 9, 14, expr=RELU)
    for tactic in family.tactics(problem_of(case, AVX2), AVX2)[:2]:
        check(LaneWise(), case, tactic, AVX2, 4e-5)


def test_infinities_in_padding_stay_out() -> None:
    """A tap outside the image is left out, not multiplied by zero."""
    if not runs_here("avx2"):
        pytest.skip("this CPU does not run avx2")
    problem = problem_of(Case(8, 8, 4, 4), AVX2)
    inputs = inputs_of(problem)
    wanted = reference(problem, inputs)
    inputs[1][0, 0, 0, 0] = np.inf
    got = Kernel(FAMILY, problem, FAMILY.tactics(problem, AVX2)[0], AVX2, inputs).run()[0]
    assert np.isfinite(got[0, 0, 0]).all()
    assert np.isfinite(got[0, 1:]).all()
    np.testing.assert_allclose(got[0, 1:], wanted[0, 1:], rtol=0, atol=1e-5)


def test_does_not_apply_to_row_major_input_or_foreign_operands() -> None:
    assert not FAMILY.applies(problem_of(Case(16, 16, 8, 8, linear=True), AVX2), AVX2)
    problem = problem_of(Case(16, 16, 8, 8, operands=("full",)), AVX2)
    assert FAMILY.applies(problem, AVX2)
    assert not FAMILY.applies(problem, AVX512)


def test_balanced_parts_differ_by_at_most_one() -> None:
    assert balanced(27, 14) == [14, 13]
    assert balanced(55, 14) == [14, 14, 14, 13]
    assert balanced(5, 8) == [5]


def test_row_tiles_name_edges_and_runs() -> None:
    conv = convolution_of(problem_of(Case(16, 16, 56, 56), AVX512), AVX512)
    assert conv is not None
    assert row_tiles(conv, 14) == (
        "EDGE(0, 14) INNER(14, 14, 2) EDGE(42, 14)",
        "COLUMN(0) COLUMN(1) COLUMN(2)",
    )


def test_units_grow_with_workers() -> None:
    for workers in (2, 8):
        problem = problem_of(Case(64, 64, 28, 28, workers=workers), AVX512)
        for tactic in FAMILY.tactics(problem, AVX512):
            assert FAMILY.generate(problem, tactic, AVX512).launches[0].num_units >= 2 * workers

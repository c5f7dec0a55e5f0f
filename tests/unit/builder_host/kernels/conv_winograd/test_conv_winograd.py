"""conv_winograd: tactics against the float64 reference; error bounds per tile size."""

from __future__ import annotations

import numpy as np
import pytest
from support.convolutions import RELU, Case, check, inputs_of, problem_of, reference
from support.cpu_kernels import AVX2, AVX512, NEON, Kernel, compile_source, runs_here

from builder_host.kernels.conv_winograd.family import FAMILY
from builder_host.kernels.conv_winograd.transforms import transformed_weights, weight_matrix
from builder_host.kernels.family import Tactic
from builder_host.targets.target import CpuTarget

CASES = [
    Case(40, 35, 14, 14, expr=RELU),
    Case(16, 64, 7, 9, batch=2, workers=4, strided=True, operands=("strided", "channel")),
    Case(64, 32, 28, 28, pads=(0, 2, 1, 0), bias=False),
    Case(24, 24, 3, 2, pads=(2, 2, 2, 2)),
    Case(16, 16, 20, 20, pads=(-1, -2, 0, 0), operands=("full", "gate")),
    Case(24, 40, 13, 9, (5, 5), pads=(2, 2, 2, 2), expr=RELU),
    Case(16, 16, 6, 6, (5, 5), pads=(0, 1, 0, 4), batch=2, bias=False),
]


def small_tactic(out_tile: int, split: int = 0) -> Tactic:
    """A variant with chunks of five tiles, whether or not it is worth trying."""
    values = {"oc_blocks": 2, "out_tile": out_tile, "pixels": 5, "split": split, "tiles": 5}
    return Tactic("conv_winograd", tuple(sorted(values.items())))


def tolerance(tactic: Tactic, channels: int, kernel: int = 3) -> float:
    """Allowed error over the largest result.

    A transformed product sums `channels` terms; going through both transforms multiplies the
    rounding errors by the product of the matrices' norms: about 3 for input tiles of 4, 30 for 6.
    """
    growth = {4: 3.0, 6: 30.0}[int(tactic.values["out_tile"]) + kernel - 1]
    return 4 * growth * float(np.finfo(np.float32).eps) * (channels + 1) ** 0.5


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON], ids=lambda t: t.isa)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tactics_match_the_reference(case: Case, target: CpuTarget) -> None:
    if not runs_here(target.isa):
        pytest.skip(f"this CPU does not run {target.isa}")
    tactics = FAMILY.tactics(problem_of(case, target), target)
    assert 1 <= len(tactics) <= 12
    sizes = (2, 4) if case.kernel == (3, 3) else (2,)
    for tactic in [*tactics[:2], *(small_tactic(out_tile) for out_tile in sizes)]:
        check(FAMILY, case, tactic, target, tolerance(tactic, case.channels, case.kernel[0]))


@pytest.mark.parametrize("out_tile", [2, 4])
@pytest.mark.parametrize("split", [0, 1])
def test_split_launches(out_tile: int, split: int) -> None:
    if not runs_here("avx512"):
        pytest.skip("this CPU does not run avx512")
    tactic = small_tactic(out_tile, split)
    case = Case(32, 80, 14, 10, batch=2, expr=RELU)
    check(FAMILY, case, tactic, AVX512, tolerance(tactic, 32))


@pytest.mark.parametrize(
    ("kernel", "out_tile", "rms", "worst"),
    [(3, 2, 6e-7, 4e-6), (3, 4, 5e-6, 1e-4), (5, 2, 5e-6, 1e-4)],
)
def test_stated_error_holds_for_many_channels(
    kernel: int, out_tile: int, rms: float, worst: float
) -> None:
    if not runs_here("avx2"):
        pytest.skip("this CPU does not run avx2")
    case = Case(256, 16, 24, 24, (kernel, kernel), pads=(kernel // 2,) * 4, bias=False)
    problem = problem_of(case, AVX2)
    inputs = inputs_of(problem)
    wanted = reference(problem, inputs)
    tactic = small_tactic(out_tile)
    error = Kernel(FAMILY, problem, tactic, AVX2, inputs).run()[0] - wanted
    scale = float(np.sqrt((wanted**2).mean()))
    assert float(np.sqrt((error**2).mean())) / scale <= rms
    assert float(np.abs(error).max()) / scale <= worst


def test_weights_of_the_centre_tap() -> None:
    weights = np.zeros((1, 1, 3, 3), np.float32)
    weights[0, 0, 1, 1] = 36
    column = np.array([0, 0.5, -0.5, 0])
    expected = 36 * np.outer(column, column)
    np.testing.assert_array_equal(transformed_weights(weights, 2)[0, 0], expected)
    column = np.array([0, -1 / 6, 1 / 6, 1 / 12, -1 / 12, 0])
    expected = (36 * np.outer(column, column)).astype(np.float32)
    np.testing.assert_array_equal(transformed_weights(weights, 4)[0, 0], expected)


@pytest.mark.parametrize(("out_tile", "kernel"), [(2, 3), (4, 3), (2, 5)])
def test_many_kernels_are_transformed_as_one_is(out_tile: int, kernel: int) -> None:
    random = np.random.default_rng(3)
    weights = random.standard_normal((70, 61, kernel, kernel)).astype(np.float32)
    points = weight_matrix(out_tile + kernel - 1, kernel)
    expected = points @ weights.astype(np.float64) @ points.T
    actual = transformed_weights(weights, out_tile)
    assert actual.dtype == np.float32
    # One rounding to float32: half a unit in the last place, plus what float64 loses on the way.
    np.testing.assert_allclose(actual, expected, rtol=2.0**-24 * 1.001, atol=1e-12)


def test_compiles_for_neon() -> None:
    problem = problem_of(CASES[0], NEON)
    for tactic in FAMILY.tactics(problem, NEON)[:2]:
        compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)


@pytest.mark.parametrize(
    "case",
    [
        Case(16, 16, 8, 8, strides=(2, 1)),
        Case(16, 16, 8, 8, dilations=(1, 2)),
        Case(16, 16, 8, 8, groups=2),
        Case(16, 16, 8, 8, (3, 1)),
        Case(16, 16, 8, 8, (7, 7)),
        Case(4, 16, 8, 8),
        Case(16, 16, 8, 8, linear=True),
    ],
    ids=str,
)
def test_does_not_apply(case: Case) -> None:
    assert not FAMILY.applies(problem_of(case, AVX2), AVX2)


def test_weights_too_large_for_memory_are_not_tried() -> None:
    """F(4x4) at 512x512x7x7 has 38 MB of weights for 4 tiles, F(2x2) 17 MB."""
    problem = problem_of(Case(512, 512, 7, 7), AVX512)
    assert {t.values["out_tile"] for t in FAMILY.tactics(problem, AVX512)} == {2}


@pytest.mark.parametrize("size", [14, 28, 56])
def test_many_workers_get_units(size: int) -> None:
    """Work comes out even for the workers, to a third, in the expected best tactic."""
    workers = 4
    problem = problem_of(Case(128, 128, size, size, workers=workers), AVX512)
    launches = FAMILY.generate(problem, FAMILY.tactics(problem, AVX512)[0], AVX512).launches
    units = launches[-1].num_units
    assert -(-units // workers) * workers / units <= 4 / 3

"""Tensor-core convolution on emulated threads against float64, and compiled for real GPUs."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_convolutions import F32, LINEAR, RELU, Case, check, problem_of
from support.cuda_kernels import compile_all, make_target

from builder_host.expressions import Binary, Const, Input
from builder_host.kernels.cuda_conv_igemm.family import FAMILY
from builder_host.kernels.cuda_conv_igemm.tiles import Tile
from builder_host.kernels.cuda_conv_igemm.weights import fragment_filters, fragment_weights
from builder_host.kernels.family import Tactic

HOPPER = make_target("90", 132)
TURING = make_target("75", 40)
ORIN = make_target("87", 16)


def tactic(
    pixels: int = 32,
    filters: int = 32,
    warps: tuple[int, int, int] = (2, 1, 1),
    k: int = 32,
    stages: int = 2,
    splits: int = 1,
    sum_: str = "none",
    rows: int = 0,
    columns: int = 0,
) -> Tactic:
    values = (
        *(("columns", columns), ("rows", rows)),
        *(("filters", filters), ("k", k), ("pixels", pixels), ("splits", splits)),
        *(("stages", stages), ("sum", sum_)),
        *(("warps_k", warps[2]), ("warps_m", warps[0]), ("warps_n", warps[1])),
    )
    return Tactic(FAMILY.name, values)


CASES = [
    Case(64, 48, 9, 10, kernel=(1, 1), pads=(0, 0, 0, 0)),
    Case(3, 24, 12, 12, kernel=(7, 7), strides=(2, 2), pads=(3, 3, 3, 3), bias=False),
    Case(20, 30, 7, 6, dilations=(2, 1), pads=(2, 1, 2, 1), batch=2),
    Case(64, 64, 6, 6, groups=4, operands=("view", "scalar")),
    Case(32, 24, 6, 6, groups=2, view=5),
    Case(32, 32, 6, 6, view=8, operands=("gate", "image")),
    Case(16, 16, 5, 5, kernel=(4, 4), strides=(2, 2), extra=(1, 0)),
    Case(16, 16, 8, 8, x_format=LINEAR, y_format=LINEAR, operands=("full",)),
    Case(8, 136, 4, 4, pads=(-1, 0, 1, 1), expr=RELU),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", [HOPPER, TURING], ids=["sm_90", "sm_75"])
def test_matches_the_reference(case: Case, target: object) -> None:
    chosen = FAMILY.tactics(problem_of(case), target)  # type: ignore[arg-type]
    check(FAMILY, case, target, chosen[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "one",
    [
        tactic(stages=2),
        tactic(stages=3, k=64, warps=(1, 1, 4)),
        tactic(pixels=64, filters=64, warps=(2, 2, 2)),
        tactic(pixels=64, filters=128, warps=(2, 4, 1)),
        tactic(pixels=16, filters=64, warps=(1, 1, 1)),
        tactic(splits=4, sum_="cluster"),
        tactic(splits=8, sum_="cluster", warps=(2, 1, 2)),
        tactic(splits=4, sum_="workspace"),
        tactic(splits=2, sum_="workspace", warps=(1, 1, 2), k=64),
        tactic(rows=4, columns=7),
        tactic(rows=2, columns=8, k=16, stages=3),
        tactic(64, 32, (2, 1, 4), 64, 1, rows=7, columns=6),
        tactic(splits=2, sum_="cluster", stages=1, rows=4, columns=8, warps=(2, 1, 2)),
        tactic(splits=3, sum_="workspace", stages=1, rows=4, columns=4, k=16),
    ],
    ids=lambda one: one.text,
)
def test_every_way_to_divide_the_work(one: Tactic) -> None:
    case = Case(40, 40, 7, 6, operands=("full", "channel"))
    check(FAMILY, case, HOPPER, one)


@pytest.mark.parametrize(
    "case",
    [
        Case(24, 40, 9, 11, strides=(2, 2), batch=2),
        Case(16, 24, 10, 9, (5, 3), (1, 2), (2, 1, 2, 1), (1, 2), operands=("view",)),
        Case(64, 64, 6, 7, groups=4, expr=RELU),
        Case(80, 16, 6, 7, pads=(0, 2, 1, 0)),
    ],
    ids=str,
)
def test_patches_shared_by_all_taps(case: Case) -> None:
    check(FAMILY, case, TURING, tactic(rows=4, columns=7, warps=(1, 1, 2)))
    check(FAMILY, case, HOPPER, tactic(rows=3, columns=8, k=64, warps=(2, 1, 4), stages=2))


def test_views_at_odd_addresses_are_read_and_written_element_by_element() -> None:
    check(FAMILY, Case(32, 32, 5, 5, view=8), HOPPER, offset=3)


def test_filters_of_a_lane_are_neighbours() -> None:
    for filters, warps_n in ((32, 1), (64, 2), (128, 4), (64, 1), (16, 1)):
        found = fragment_filters(Tile(16, filters, 1, warps_n, 1, 32, 2, 1, False))
        assert sorted(found.reshape(-1)) == list(range(filters))
        tiles = filters // warps_n // 8
        run = min(tiles, 4)
        # Lane t of a row holds columns 2t and 2t + 1 of `run` tiles.
        columns = found.transpose(0, 2, 1).reshape(-1, 8)[:run]
        for lane in range(4):
            held = columns[:, 2 * lane : 2 * lane + 2].reshape(-1)
            assert list(held) == list(range(held[0], held[0] + 2 * run))


def test_fragments_hold_every_weight_once() -> None:
    tile = Tile(16, 32, 1, 1, 4, 64, 2, 1, False)
    weights = np.arange(1, 1 + 2 * 24 * 9 * 8, dtype=np.float16).reshape(2, 24, 9, 8)
    packed = fragment_weights(weights, tile, 32)
    assert packed.size == 2 * 32 * 128
    assert sorted(packed[packed != 0]) == sorted(weights.reshape(-1))


def test_tactics_are_few_distinct_and_fit_the_device() -> None:
    for case in (Case(64, 64, 56, 56), Case(512, 512, 7, 7), Case(256, 1024, 14, 14, (1, 1))):
        for target in (HOPPER, TURING, ORIN):
            problem = problem_of(case)
            found = FAMILY.tactics(problem, target)
            assert 1 <= len(found) <= 12
            assert len({one.text for one in found}) == len(found)
            for one in found:
                program = FAMILY.generate(problem, one, target)
                first = program.launches[0]
                assert first.shared_memory_bytes <= target.shared_per_block_bytes
                assert (first.cluster == (1, 1, 1)) or target.has_clusters


def test_what_it_does_not_apply_to() -> None:
    assert not FAMILY.applies(problem_of(Case(64, 64, 8, 8, dtype=F32)), HOPPER)
    assert not FAMILY.applies(problem_of(Case(64, 64, 8, 8)), make_target("72", 8))
    assert not FAMILY.applies(problem_of(Case(16, 16, 8, 8, groups=4)), HOPPER)
    with pytest.raises(ValueError, match="does not apply"):
        FAMILY.generate(problem_of(Case(64, 64, 8, 8, dtype=F32)), tactic(), HOPPER)


@pytest.mark.parametrize("architecture", ["75", "80", "87", "90"])
def test_compiles_for_real_devices_without_spills(architecture: str) -> None:
    target = make_target(architecture, 16)
    swish = Binary("mul", Input(0), Binary("div", Const(1.0), Input(1)))
    cases = [Case(64, 64, 14, 14, operands=("full",), expr=swish), Case(20, 30, 7, 6, view=5)]
    sources = []
    for case in cases:
        problem = problem_of(case)
        for one in FAMILY.tactics(problem, target)[:3]:
            sources.append(FAMILY.generate(problem, one, target).source)
    compile_all(sources, architecture)

"""Warp-group convolution on emulated threads against float64, and compiled for sm_90a."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_convolutions import F32, LINEAR, RELU, Case, check, problem_of
from support.cuda_kernels import compile_all, make_target

from builder_host.kernels.cuda_conv_wgmma.family import FAMILY, packed_rows
from builder_host.kernels.family import Tactic

HOPPER = make_target("90", 132)
WITHOUT = [make_target(name, 16) for name in ("80", "87", "100")]


def tactic(
    pixels: int = 32,
    filters: int = 64,
    groups_k: int = 1,
    stages: int = 3,
    splits: int = 1,
    patch: tuple[int, int, int] = (0, 0, 0),
) -> Tactic:
    values = {"pixels": pixels, "filters": filters, "groups_k": groups_k}
    values |= {"stages": stages, "splits": splits}
    values |= {"rows": patch[0], "columns": patch[1], "patches": patch[2]}
    return Tactic(FAMILY.name, tuple(sorted(values.items())))


CASES = [
    Case(64, 48, 9, 10, kernel=(1, 1), pads=(0, 0, 0, 0)),
    Case(16, 24, 12, 12, kernel=(7, 7), strides=(2, 2), pads=(3, 3, 3, 3), bias=False),
    Case(24, 30, 7, 6, dilations=(2, 1), pads=(2, 1, 2, 1), batch=2, operands=("channel", "full")),
    Case(8, 136, 4, 4, pads=(-1, 0, 1, 1), expr=RELU),
    Case(128, 64, 6, 6, operands=("view", "scalar"), y_format=LINEAR),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_the_reference(case: Case) -> None:
    check(FAMILY, case, HOPPER)


@pytest.mark.parametrize(
    "one",
    [
        tactic(),
        tactic(16, stages=5),
        tactic(24, 128),
        tactic(56, 128, groups_k=2),
        tactic(64, groups_k=4, stages=4),
        tactic(112, stages=3),
        tactic(32, splits=2),
        tactic(24, 128, groups_k=2, splits=4),
        tactic(16, groups_k=4, splits=8),
        tactic(128, 128),
    ],
    ids=lambda one: one.text,
)
def test_every_kind_of_tile(one: Tactic) -> None:
    """18 stages of k; the last tiles of pixels and filters are not full."""
    case = Case(128, 80, 9, 7, strides=(2, 1), operands=("full",), expr=None)
    check(FAMILY, case, HOPPER, one)


@pytest.mark.parametrize(
    ("case", "one"),
    [
        (Case(64, 64, 6, 7, operands=("full",)), tactic(56, stages=9, patch=(6, 7, 1))),
        (Case(64, 80, 9, 10), tactic(40, 128, stages=3, patch=(4, 7, 1))),
        (Case(136, 64, 6, 6, pads=(0, 2, 1, 0)), tactic(24, stages=5, patch=(3, 6, 2))),
        (Case(200, 64, 5, 6, (3, 2), batch=2), tactic(32, stages=3, patch=(4, 6, 2))),
        (Case(256, 72, 5, 7), tactic(32, stages=6, splits=2, patch=(3, 7, 2))),
        (Case(320, 64, 5, 5), tactic(40, groups_k=2, stages=4, splits=4, patch=(5, 5, 2))),
        (Case(24, 64, 8, 8, (5, 5), pads=(2,) * 4), tactic(96, stages=4, patch=(8, 8, 1))),
    ],
    ids=lambda one: getattr(one, "text", None) or str(one),
)
def test_patches_shared_by_all_taps(case: Case, one: Tactic) -> None:
    check(FAMILY, case, HOPPER, one)


def test_a_split_without_a_full_share() -> None:
    """Five stages for four blocks: two, two, one, none."""
    case = Case(64, 64, 5, 5, kernel=(1, 5), pads=(0, 2, 0, 2))
    check(FAMILY, case, HOPPER, tactic(splits=4, stages=2))


def test_rows_of_weights() -> None:
    weights = np.arange(64 * 3 * 24, dtype=np.float16).reshape(64, 3, 24) % 1021
    rows = packed_rows(weights, 64, 2).reshape(2, 64, 8, 8)
    flat = np.zeros((64, 128), np.float16)
    flat[:, :72] = weights.reshape(64, 72)
    for row in range(64):
        filter_ = row // 16 * 16 + row % 8 * 2 + row // 8 % 2
        for chunk in range(8):
            for step in range(2):
                k = step * 64 + chunk * 8
                got = rows[step, row, chunk ^ (row % 8)]
                np.testing.assert_array_equal(got, flat[filter_, k : k + 8])


def test_what_it_leaves_to_others() -> None:
    fine = Case(64, 64, 8, 8)
    assert FAMILY.applies(problem_of(fine), HOPPER)
    for target in WITHOUT:
        assert not FAMILY.applies(problem_of(fine), target)
    for case in (
        Case(64, 64, 8, 8, dtype=F32),
        Case(64, 64, 8, 8, groups=2),
        Case(64, 64, 8, 8, x_format=LINEAR),
        Case(64, 64, 8, 8, view=8),
        Case(12, 64, 8, 8),
        Case(16, 16, 5, 5, kernel=(4, 4), strides=(2, 2), extra=(1, 0)),
    ):
        assert not FAMILY.applies(problem_of(case), HOPPER)


def test_compiles_for_hopper() -> None:
    problem = problem_of(Case(64, 160, 16, 16, operands=("full",)))
    tiles = [tactic(p, f) for p in (16, 24, 32, 56, 64, 112, 128, 192, 256) for f in (64, 128)]
    tiles += [tactic(32, groups_k=2, splits=4), tactic(160, patch=(8, 16, 1))]
    sources = [FAMILY.generate(problem, one, HOPPER).source for one in tiles]
    assert all(code[:4] == b"\x7fELF" for code in compile_all(sources, "90"))

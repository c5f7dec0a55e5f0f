"""8-bit convolution on emulated tensor cores: bits equal to int64 sums and a float32 epilogue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.cuda_integers import check_convolution, cuda_problem
from support.cuda_kernels import compile_programs, make_target, run
from support.integer_kernels import F32, I8, U8, Case8, finished, integer_convolution, random_inputs

from builder_host.expressions import Binary, Const, Input
from builder_host.kernels.cuda_conv_igemm.family import tile_of_tactic, tile_tactic
from builder_host.kernels.cuda_conv_igemm.tiles import Tile
from builder_host.kernels.cuda_conv_int8.family import FAMILY
from builder_host.network.network import Epilogue
from planformat.datatypes import DataType

HOPPER = make_target("90", 132)
ORIN = make_target("87", 16)
TURING = make_target("75", 40)

CASES = [
    Case8(64, 48, 9, 10, (1, 1), pads=(0, 0, 0, 0)),
    Case8(64, 64, 7, 7, residual=I8),
    Case8(32, 40, 9, 11, x=U8, y=U8, residual=U8),
    Case8(48, 24, 8, 8, strides=(2, 2), residual=F32, y=F32, relu=False),
    Case8(3, 20, 19, 17, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3)),
    Case8(1, 17, 12, 12, (5, 5), pads=(0, 0, 0, 0), x=U8),
    Case8(20, 33, 9, 12, (5, 5), pads=(2, 2, 2, 2), dilations=(2, 3), batch=2),
    Case8(24, 30, 6, 7, x=U8, raw=True, y=F32),
    Case8(64, 64, 6, 6, groups=2),
    Case8(32, 32, 6, 6, groups=4, relu=False),
    Case8(16, 16, 8, 8, pads=(-1, -1, -1, -1)),
    Case8(16, 33, 6, 9, pads=(0, 2, 3, 0), strides=(1, 2)),
]
# pixels, filters, warps over pixels, filters and k, k in pairs, stages, splits, cluster
TILES = [
    (16, 32, 1, 1, 4, 64, 2, 1, False),
    (64, 64, 2, 2, 1, 32, 3, 1, False),
    (32, 64, 2, 2, 2, 32, 2, 4, True),
    (64, 128, 2, 4, 1, 32, 2, 2, True),
    (32, 64, 2, 2, 2, 32, 2, 4, False),
    (64, 128, 1, 4, 1, 16, 3, 2, False),
    (128, 128, 2, 2, 1, 32, 2, 1, False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_are_those_of_exact_sums(case: Case8) -> None:
    check_convolution(FAMILY, case, ORIN)


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_every_kind_of_tile(tile: tuple[int, int, int, int, int, int, int, int, bool]) -> None:
    case = Case8(96, 72, 9, 10, residual=I8)
    check_convolution(FAMILY, case, HOPPER, tile_tactic(FAMILY.name, Tile(*tile)))


@pytest.mark.parametrize("gap", [16, 8, 3])
def test_views_wherever_they_begin(gap: int) -> None:
    """Parts of larger tensors: aligned, aligned to 8 bytes, and not aligned at all."""
    case = Case8(32, 32, 6, 6, residual=I8, has_gaps=True)
    check_convolution(FAMILY, case, ORIN, gap=gap, offset=gap)


def test_turing_copies_at_once() -> None:
    check_convolution(FAMILY, Case8(64, 40, 6, 6, x=U8, y=U8), TURING)


def test_float16_results_and_operands() -> None:
    """A layer at the border to float16: real numbers are added and stored."""
    half = DataType.FLOAT16
    problem = cuda_problem(Case8(32, 24, 6, 6, residual=F32, y=F32))
    *inputs, residual = problem.inputs
    (y,) = problem.outputs
    problem = replace(
        problem,
        inputs=(*inputs, replace(residual, dtype=half)),
        outputs=(replace(y, dtype=half),),
    )
    values = random_inputs(replace(problem, inputs=(*inputs, residual)))
    values[-1] = values[-1].astype(np.float16)
    sums = integer_convolution(problem.params, *values[:2])
    got = run(FAMILY, problem, ORIN, values)[0]
    assert got.tobytes() == finished(problem, sums, values).tobytes()


def test_where_it_applies() -> None:
    case = Case8(64, 64, 8, 8)
    problem = cuda_problem(case)
    for name in ("75", "80", "86", "87", "89", "90"):
        assert FAMILY.applies(problem, make_target(name))
    for name in ("53", "61", "62", "72"):
        assert not FAMILY.applies(problem, make_target(name))
    assert not FAMILY.applies(cuda_problem(Case8(64, 64, 8, 8, groups=64)), ORIN)
    unclipped = replace(problem, epilogue=Epilogue(Binary("mul", Input(0), Const(0.01)), 2))
    assert not FAMILY.applies(unclipped, ORIN), "a result that is not clipped to 8 bits"
    # 128 x 128 x 131072 does not fit int32 any more
    wide = replace(problem.inputs[1], shape=(64, 131072, 1, 1), strides=(131072, 1, 1, 1))
    x = replace(problem.inputs[0], shape=(1, 131072, 8, 8), strides=(64 * 131072, 1, 8, 131072))
    assert not FAMILY.applies(replace(problem, inputs=(x, wide, *problem.inputs[2:])), ORIN)


def test_a_tactic_is_a_tile() -> None:
    problem = cuda_problem(Case8(256, 256, 14, 14))
    tactics = FAMILY.tactics(problem, HOPPER)
    assert 4 <= len(tactics) <= 12
    assert [tile_tactic(FAMILY.name, tile_of_tactic(t)) for t in tactics] == list(tactics)


@pytest.mark.parametrize("architecture", ["75", "80", "86", "87", "89", "90"])
def test_compiles_for_gpus(architecture: str) -> None:
    """The best tactics of a layer with all kinds of operands, and the gathering form."""
    target = make_target(architecture)
    programs = []
    for case in (Case8(128, 64, 14, 14, residual=I8), Case8(3, 32, 32, 32, x=U8, y=U8)):
        problem = cuda_problem(case)
        tactics = FAMILY.tactics(problem, target)[:3]
        programs += [FAMILY.generate(problem, tactic, target) for tactic in tactics]
    compile_programs(programs, architecture)

"""conv_first: every tactic against the float64 reference, on each instruction set that runs."""

from __future__ import annotations

import pytest
from support.convolutions import RELU, Case, check, problem_of
from support.cpu_kernels import AVX2, AVX512, NEON, compile_source, runs_here

from builder_host.kernels.conv_direct.family import FAMILY as DIRECT
from builder_host.kernels.conv_first.family import FAMILY
from builder_host.targets.target import CpuTarget

CASES = [
    Case(3, 40, 13, 17, linear=True, expr=RELU),
    Case(3, 16, 30, 31, (7, 7), (2, 2), (3, 3, 3, 3), linear=True, batch=2, workers=2),
    Case(1, 8, 9, 9, (2, 3), pads=(-1, -2, 0, 0), linear=True, operands=("full",)),
    Case(4, 30, 8, 8, (5, 5), (1, 2), (9, 9, 9, 9), (2, 2), linear=True, bias=False),
    Case(8, 20, 6, 7, linear=True, strided=True, operands=("strided", "channel")),
]


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON], ids=lambda t: t.isa)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tactics_match_the_reference(case: Case, target: CpuTarget) -> None:
    if not runs_here(target.isa):
        pytest.skip(f"this CPU does not run {target.isa}")
    tactics = FAMILY.tactics(problem_of(case, target), target)
    assert 1 <= len(tactics) <= 12
    for tactic in tactics[::2]:
        check(FAMILY, case, tactic, target)


def test_compiles_for_neon() -> None:
    problem = problem_of(CASES[0], NEON)
    for tactic in FAMILY.tactics(problem, NEON)[:2]:
        compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)


def test_applies_to_row_major_input_with_few_channels_only() -> None:
    assert FAMILY.applies(problem_of(Case(8, 8, 6, 6, linear=True), AVX2), AVX2)
    assert not FAMILY.applies(problem_of(Case(9, 8, 6, 6, linear=True), AVX2), AVX2)
    assert not FAMILY.applies(problem_of(Case(8, 8, 6, 6), AVX2), AVX2)
    grouped = Case(4, 8, 6, 6, groups=2, linear=True)
    assert not FAMILY.applies(problem_of(grouped, AVX2), AVX2)


def test_workers_get_smaller_units() -> None:
    one = problem_of(Case(3, 16, 32, 32, linear=True), AVX2)
    many = problem_of(Case(3, 16, 32, 32, linear=True, workers=4), AVX2)
    units = [
        FAMILY.generate(p, FAMILY.tactics(p, AVX2)[0], AVX2).launches[0].num_units
        for p in (one, many)
    ]
    assert units == [8, 16]


def test_estimate_prefers_it_to_a_blocked_copy_of_the_input() -> None:
    linear = problem_of(Case(3, 64, 112, 112, (7, 7), (2, 2), (3, 3, 3, 3), linear=True), AVX512)
    blocked = problem_of(Case(3, 64, 112, 112, (7, 7), (2, 2), (3, 3, 3, 3)), AVX512)
    assert FAMILY.estimate_us(linear, AVX512) < DIRECT.estimate_us(blocked, AVX512)

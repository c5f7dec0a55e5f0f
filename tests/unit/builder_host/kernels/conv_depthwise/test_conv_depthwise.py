"""conv_depthwise: every tactic against the float64 reference, on each instruction set."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.convolutions import RELU, Case, check, problem_of
from support.cpu_kernels import AVX2, AVX512, NEON, compile_source, runs_here

from builder_host.kernels.conv_depthwise.family import FAMILY
from builder_host.targets.target import CpuTarget


def square(channels: int, size: int, kernel: int = 3, stride: int = 1, batch: int = 1) -> Case:
    """A depthwise case with same padding and a ReLU."""
    pads = (kernel // 2,) * 4
    return Case(
        channels, channels, size, size, (kernel, kernel), (stride, stride), pads,
        groups=channels, batch=batch, expr=RELU, workers=batch * 2,
    )  # fmt: skip


CASES = [
    square(40, 14),
    square(17, 13, 5, 2, batch=2),
    square(16, 7, 7),
    square(16, 40, 21),
    Case(16, 16, 9, 9, strides=(2, 2), groups=16, strided=True, operands=("full", "channel")),
    Case(32, 32, 20, 20, dilations=(3, 2), pads=(3, 2, 3, 2), groups=32, bias=False),
    Case(9, 9, 6, 7, (2, 3), pads=(-1, -1, 1, 0), groups=9),
    Case(8, 8, 3, 200, (1, 2), dilations=(1, 100), pads=(0, 50, 0, 50), groups=8),
    Case(16, 16, 5, 5, (5, 5), pads=(4, 4, 4, 4), groups=16, workers=8),
]


@pytest.mark.parametrize("target", [AVX512, AVX2, NEON], ids=lambda t: t.isa)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_tactics_match_the_reference(case: Case, target: CpuTarget) -> None:
    if not runs_here(target.isa):
        pytest.skip(f"this CPU does not run {target.isa}")
    tactics = FAMILY.tactics(problem_of(case, target), target)
    assert 1 <= len(tactics) <= 12
    for tactic in tactics[:3]:
        check(FAMILY, case, tactic, target)


@pytest.mark.parametrize("case", [CASES[0], CASES[5]], ids=str)
def test_compiles_for_neon(case: Case) -> None:
    problem = problem_of(case, NEON)
    for tactic in FAMILY.tactics(problem, NEON)[:2]:
        compile_source(FAMILY.generate(problem, tactic, NEON).source, NEON)


def test_applies_to_one_filter_per_channel_only() -> None:
    assert FAMILY.applies(problem_of(Case(16, 16, 6, 6, groups=16), AVX2), AVX2)
    assert not FAMILY.applies(problem_of(Case(16, 32, 6, 6, groups=16), AVX2), AVX2)
    assert not FAMILY.applies(problem_of(Case(16, 16, 6, 6, groups=8), AVX2), AVX2)
    linear = Case(4, 4, 6, 6, groups=4, linear=True)
    assert not FAMILY.applies(problem_of(linear, AVX2), AVX2)


@pytest.mark.parametrize(
    ("channels", "size", "stride", "measured_us"),
    [(96, 112, 2, 89.6), (144, 56, 1, 95.4), (192, 28, 1, 23.2), (384, 14, 1, 11.3)],
)
def test_the_estimate_is_near_what_one_thread_of_zen_4_takes(
    channels: int, size: int, stride: int, measured_us: float
) -> None:
    zen_4 = replace(
        AVX512, l2_bytes=1 << 20, l3_bytes=32 << 20, fma_gflops_per_core=110.0, memory_gbps=20.0
    )
    problem = problem_of(square(channels, size, stride=stride), zen_4)
    assert 1 / 1.5 < FAMILY.estimate_us(problem, zen_4) / measured_us < 1.5

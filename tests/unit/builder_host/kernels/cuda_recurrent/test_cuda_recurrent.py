"""CUDA kernels of recurrent layers on emulated threads against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_kernels import compile_all, make_target, run
from support.recurrent_problems import recurrent_problem, reference

from builder_host.kernels.cuda_recurrent.family import FAMILY
from builder_host.kernels.cuda_recurrent.tiling import plan_tiling
from builder_host.kernels.family import Tactic
from builder_host.kernels.recurrent.cell import cell_of
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.recurrent import RecurrentParams
from planformat.datatypes import DataType

HALF, FLOAT = DataType.FLOAT16, DataType.FLOAT32
CELLS = [
    RecurrentParams("lstm", 37, has_hidden=True, has_cell=True),
    RecurrentParams("lstm", 16, "bidirectional", has_lengths=True, has_peepholes=True),
    RecurrentParams("lstm", 22, "reverse", clip=0.7, has_continuation=True),
    RecurrentParams("lstm", 18, couples_input_forget=True, has_lengths=True, has_continuation=True),
    RecurrentParams("gru", 21, linear_before_reset=True, has_hidden=True),
    RecurrentParams("gru", 24, "bidirectional", has_hidden=True, has_lengths=True),
    RecurrentParams("rnn", 34, "reverse", has_hidden=True),
    RecurrentParams(
        "rnn", 19, "bidirectional", (ActivationParams("relu"), ActivationParams("softplus"))
    ),
]


def limit(problem) -> float:
    """Largest error of any output.

    A step adds H products below 0.5 / sqrt(H) to x below 2: H / 2 + 16 roundings of float32. In
    float16 the state is rounded once more for every product: 2^-11 of 1 in each of H terms of
    random sign, which sums with R below 0.5 / sqrt(H) to at most 2^-11 * sqrt(H) / 2; and outputs
    are stored in float16. The recurrent gain is below one, so steps add up.
    """
    steps, hidden = problem.inputs[0].shape[0], problem.params.hidden_size
    eps = float(np.finfo(np.float32).eps)
    one_step = (hidden / 2 + 16) * eps / 2 * (2 + np.sqrt(hidden) / 2)
    if problem.inputs[0].dtype is FLOAT:
        return steps * one_step
    return steps * (one_step + 2.0**-12 * np.sqrt(hidden)) + 2.0**-11 * (1 + steps)


def persistent(cluster, warps, rows, *, mma, split=2):
    values = {"cluster": cluster, "mma": mma, "rows": rows, "split": split, "warps": warps}
    return Tactic("cuda_recurrent", (("form", "persistent"), *values.items()))


def check(problem, inputs, target, tactic):
    expected = reference(problem, inputs)
    for one, other in zip(run(FAMILY, problem, target, inputs, tactic), expected, strict=True):
        assert np.abs(one.astype(np.float64) - other).max() <= limit(problem)


@pytest.mark.parametrize("params", CELLS, ids=lambda p: f"{p.cell}{p.hidden_size}")
@pytest.mark.parametrize(
    ("architecture", "dtype"), [("90", HALF), ("53", FLOAT)], ids=["mma", "plain"]
)
def test_one_block_keeps_everything(params, architecture, dtype):
    problem, inputs = recurrent_problem(params, 3, 2, dtype=dtype, gap=3)
    target = make_target(architecture)
    check(problem, inputs, target, persistent(1, 4, 2, mma=int(dtype is HALF)))


@pytest.mark.parametrize("params", CELLS, ids=lambda p: f"{p.cell}{p.hidden_size}")
@pytest.mark.parametrize(
    ("dtype", "mma"),
    [
        pytest.param(HALF, 1, id="mma"),
        pytest.param(HALF, 0, id="half", marks=pytest.mark.slow),
        pytest.param(FLOAT, 0, id="float"),
    ],
)
def test_a_cluster_exchanges_its_states(params, dtype, mma):
    problem, inputs = recurrent_problem(params, 3, 3, dtype=dtype)
    check(problem, inputs, make_target("90"), persistent(2, 2, 2, mma=mma))


@pytest.mark.parametrize("params", CELLS, ids=lambda p: f"{p.cell}{p.hidden_size}")
@pytest.mark.parametrize(
    "dtype", [HALF, pytest.param(FLOAT, marks=pytest.mark.slow)], ids=["half", "float"]
)
def test_one_kernel_per_step(params, dtype):
    problem, inputs = recurrent_problem(params, 3, 5, dtype=dtype, is_live=True)
    target = make_target("62")
    tactics = FAMILY.tactics(problem, target)
    assert [t.values["form"] for t in tactics] == ["step"]  # live R cannot be packed
    check(problem, inputs, target, tactics[0])


@pytest.mark.parametrize("split", [1, 4])
def test_warps_share_rows_or_not(split):
    problem, inputs = recurrent_problem(RecurrentParams("lstm", 48), 2, 1, dtype=HALF)
    check(problem, inputs, make_target("90"), persistent(2, 4, 1, mma=1, split=split))


def test_sixteen_blocks_as_on_an_h200():
    problem, inputs = recurrent_problem(RecurrentParams("lstm", 128), 2, 1, dtype=HALF)
    check(problem, inputs, make_target("90"), persistent(16, 4, 1, mma=1))


@pytest.mark.parametrize("mma", [0, 1])
def test_pieces_beyond_registers_lie_in_shared_memory_and_the_rest_streams(mma):
    problem, inputs = recurrent_problem(
        RecurrentParams("lstm", 128), 2, 1, dtype=HALF if mma else FLOAT
    )
    target = make_target("75" if mma else "53")
    cell = cell_of(problem, frozenset({HALF, FLOAT}))
    assert cell is not None
    tiling = plan_tiling(cell, target, cluster=1, warps=4, warps_k=1, uses_mma=bool(mma), rows=1)
    assert tiling is not None
    (phase,) = tiling.phases
    assert phase.held > 0
    assert phase.shared > 0
    assert phase.streamed > 0
    assert tiling.shared_bytes <= target.shared_per_block_bytes
    check(problem, inputs, target, persistent(1, 4, 1, mma=mma, split=1))


def test_tactics_fit_the_gpu_and_end_with_the_form_for_all():
    problem, _ = recurrent_problem(RecurrentParams("lstm", 512), 100, 1, dtype=HALF)
    hopper = FAMILY.tactics(problem, make_target("90", 132))
    assert hopper[0].values["cluster"] == 16
    assert "step" in {t.values["form"] for t in hopper}
    assert len(set(hopper)) == len(hopper) <= 12
    assert len({t.values.get("cluster") for t in hopper}) >= 3  # should 16 blocks not fit
    small_blackwell = FAMILY.tactics(problem, make_target("120", 48))
    assert max(t.values.get("cluster", 1) for t in small_blackwell) <= 8
    orin = FAMILY.tactics(problem, make_target("87", 16))
    assert {t.values.get("cluster", 1) for t in orin} == {1}
    assert FAMILY.estimate_us(problem, make_target("90", 132)) < 300
    large, _ = recurrent_problem(RecurrentParams("lstm", 1024), 2, 1, dtype=FLOAT)
    nano = FAMILY.tactics(large, make_target("53", 1))
    assert nano[0].values["form"] == "step"


@pytest.mark.parametrize("architecture", ["53", "75", "87", "90"])
def test_compiles_for_real_gpus(architecture):
    target = make_target(architecture, 16)
    sources = []
    for params in (
        RecurrentParams("lstm", 128, has_lengths=True),
        RecurrentParams("gru", 64, "bidirectional"),
    ):
        problem, _ = recurrent_problem(params, 4, 1, dtype=HALF)
        tactics = FAMILY.tactics(problem, target)
        sources += [FAMILY.generate(problem, t, target).source for t in (tactics[0], tactics[-1])]
    assert all(compile_all(sources, architecture))

"""CPU kernels of recurrent layers against the float64 reference of the layer."""

from __future__ import annotations

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, Kernel, compile_source, runs_here
from support.recurrent_problems import recurrent_problem, reference

from builder_host.kernels.recurrent.family import FAMILY
from builder_host.layouts import Layout
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.recurrent import RecurrentParams
from planformat.datatypes import DataType

EPS = float(np.finfo(np.float32).eps)
TARGETS = [
    *(pytest.param(t, id=t.isa) for t in (AVX512, AVX2)),
    pytest.param(NEON, id="neon", marks=pytest.mark.slow),
]
CELLS = [
    RecurrentParams("lstm", 37),
    RecurrentParams("lstm", 16, "bidirectional", has_hidden=True, has_cell=True),
    RecurrentParams("lstm", 24, "reverse", has_peepholes=True, has_lengths=True),
    RecurrentParams("lstm", 33, couples_input_forget=True, clip=0.7, has_continuation=True),
    RecurrentParams(
        "lstm", 20, "bidirectional", has_lengths=True, has_continuation=True, has_hidden=True
    ),
    RecurrentParams("gru", 37, linear_before_reset=True, has_hidden=True),
    RecurrentParams("gru", 21, "bidirectional", has_lengths=True, has_hidden=True),
    RecurrentParams("gru", 40, "reverse", clip=0.5, has_continuation=True),
    RecurrentParams("rnn", 70, has_hidden=True),
    RecurrentParams(
        "rnn",
        19,
        "bidirectional",
        (ActivationParams("relu"), ActivationParams("scaled_tanh", 1.2, 0.5)),
        has_lengths=True,
    ),
]


def limit(problem) -> float:
    """Largest error of any output.

    A step sums H products below 0.5 / sqrt(H) in interleaved chains after x below 2: at most
    H / 2 + 16 roundings of values below 2 + sqrt(H) / 2, activations included. The recurrent gain
    is below one, so the errors of the steps add up, and those of a cell state with them.
    """
    steps, hidden = problem.inputs[0].shape[0], problem.params.hidden_size
    one_step = (hidden / 2 + 16) * EPS / 2 * (2 + np.sqrt(hidden) / 2)
    return steps * one_step


def check(problem, inputs, target):
    if not runs_here(target.isa):
        pytest.skip(f"this machine has no {target.isa}")
    assert FAMILY.applies(problem, target)
    assert FAMILY.estimate_us(problem, target) > 0
    expected = reference(problem, inputs)
    tactics = FAMILY.tactics(problem, target)
    assert len(set(tactics)) == len(tactics) <= 12
    for tactic in dict.fromkeys((tactics[0], tactics[-1])):  # shared steps, whole layer
        got = Kernel(FAMILY, problem, tactic, target, inputs).run()
        for one, other in zip(got, expected, strict=True):
            assert np.abs(one - other).max() <= limit(problem)
    return tactics


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("params", CELLS, ids=lambda p: f"{p.cell}{p.hidden_size}")
def test_every_cell_in_both_forms(params, target):
    problem, inputs = recurrent_problem(params, 7, 3, num_workers=2, gap=5)
    tactics = check(problem, inputs, target)
    forms = {tactics[0].values["shares"], tactics[-1].values["shares"]}
    assert forms == ({0} if params.cell == "gru" and not params.linear_before_reset else {0, 1})


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_every_tactic(cell, batch):
    if not runs_here("avx512"):
        pytest.skip("this machine has no avx512")
    problem, inputs = recurrent_problem(RecurrentParams(cell, 70), 5, batch, num_workers=2)
    expected = reference(problem, inputs)
    for tactic in FAMILY.tactics(problem, AVX512):
        got = Kernel(FAMILY, problem, tactic, AVX512, inputs).run()
        for one, other in zip(got, expected, strict=True):
            assert np.abs(one - other).max() <= limit(problem)


def test_a_worker_more_offers_launches_per_step():
    problem, _ = recurrent_problem(RecurrentParams("lstm", 64), 4, 1, num_workers=2)
    alone, _ = recurrent_problem(RecurrentParams("lstm", 64), 4, 1)
    shares = [t.values["shares"] for t in FAMILY.tactics(problem, AVX512)]
    assert {0, 1} == set(shares)
    assert {0} == {t.values["shares"] for t in FAMILY.tactics(alone, AVX512)}
    tactic = next(t for t in FAMILY.tactics(problem, AVX512) if t.values["shares"])
    program = FAMILY.generate(problem, tactic, AVX512)
    assert len(program.launches) == 1 + 4
    assert all(launch.num_units > 1 for launch in program.launches[1:])


@pytest.mark.parametrize(
    "params",
    [RecurrentParams("lstm", 20, "bidirectional"), RecurrentParams("gru", 20)],
    ids=lambda p: p.cell,
)
def test_live_recurrent_weights_are_packed_on_the_way(params):
    problem, inputs = recurrent_problem(params, 3, 2, is_live=True, num_workers=2)
    check(problem, inputs, AVX2)


def test_large_batch_uses_register_tiles_and_leaves_a_rest():
    problem, inputs = recurrent_problem(RecurrentParams("lstm", 32), 3, 11)
    tactics = check(problem, inputs, AVX512)
    assert tactics[0].values["row_tile"] == max(t.values["row_tile"] for t in tactics)
    assert max(t.values["row_tile"] for t in tactics) > 1


def test_a_zero_continuation_clears_even_a_state_that_is_not_finite():
    params = RecurrentParams("lstm", 16, has_hidden=True, has_cell=True, has_continuation=True)
    problem, inputs = recurrent_problem(params, 2, 1)
    named = dict(zip(problem.params.input_roles, inputs, strict=True))
    named["cell"][:], named["hidden"][:], named["continuation"][:] = np.inf, np.nan, 0.0
    check(problem, inputs, AVX2)


def test_compiles_for_a_jetson():
    problem, _ = recurrent_problem(RecurrentParams("gru", 37), 2, 1)
    (first, *_) = FAMILY.tactics(problem, NEON)
    compile_source(FAMILY.generate(problem, first, NEON).source, NEON)


def test_refuses_what_it_cannot_read():
    problem, _ = recurrent_problem(RecurrentParams("lstm", 16, has_hidden=True), 2, 1)
    x, recurrent, hidden = problem.inputs
    strided = Layout(hidden.format, hidden.shape, hidden.dtype, (64, 64, 2))
    half = Layout(x.format, x.shape, DataType.FLOAT16, x.strides)
    for inputs in ((x, recurrent, strided), (half, recurrent, hidden)):
        other = type(problem)(
            "recurrent", problem.params, inputs, problem.is_constant, problem.outputs
        )
        assert not FAMILY.applies(other, AVX512)

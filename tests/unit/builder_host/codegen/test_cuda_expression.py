"""Scalar expressions printed as CUDA C++, run on emulated threads and compared with float64."""

from __future__ import annotations

import numpy as np
import pytest
from support.cuda_shim import run_emulated

from builder_host.codegen.cuda_expression import (
    cuda_float_literal,
    print_cuda,
    print_cuda_integer,
    print_cuda_statements,
)
from builder_host.expressions import (
    BINARY_OPS,
    BOOLEAN_OPS,
    UNARY_OPS,
    Binary,
    Const,
    Input,
    Select,
    Unary,
    evaluate,
    leaky_relu,
)
from builder_host.kernels.family import GridLaunch

X0, X1 = Input(0), Input(1)
EPS = 2.0**-23
EDGES = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, 80.0, -80.0, np.inf, -np.inf, np.nan])


def run_all(expressions, a, b):
    """Each expression over all pairs, one kernel for all: float32 [expressions][pairs]."""
    texts = [print_cuda(e, ["a", "b"]) for e in expressions]
    body = "\n".join(f"  y[{n} * {len(a)} + i] = {text};" for n, text in enumerate(texts))
    source = (
        '#include "ep_cuda.cuh"\n'
        'extern "C" __global__ void kernel(const float *pa, const float *pb, float *y) {\n'
        "  const int i = threadIdx.x;\n  const float a = pa[i], b = pb[i];\n"
        f"{body}\n}}\n"
    )
    left, right = a.astype(np.float32), b.astype(np.float32)
    y = np.zeros((len(texts), len(a)), np.float32)
    launch = GridLaunch("kernel", (1, 1, 1), (len(a), 1, 1))
    run_emulated(source, [launch], [left, right, y])
    return y


def close(result, wanted, ulps, absolute=0.0):
    """Equal where not finite; else within some ulps (of the smallest normal number at least)."""
    finite = np.isfinite(wanted) & (np.abs(wanted) < 3.4e38)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(result[~finite], wanted[~finite].astype(np.float32))
    limit = ulps * EPS * np.maximum(np.abs(wanted[finite]), 2.0**-126) + absolute
    assert (np.abs(result[finite] - wanted[finite]) <= limit).all()


def test_every_unary_operation():
    rng = np.random.default_rng(0)
    x = np.concatenate([EDGES, rng.normal(0, 2, 84)]).astype(np.float32).astype(np.float64)
    names = sorted(UNARY_OPS)
    with np.errstate(all="ignore"):
        wanted = [np.asarray(evaluate(Unary(n, X0), [x]), np.float64) for n in names]
    results = run_all([Unary(n, X0) for n in names], x, x)
    for name, result, want in zip(names, results, wanted, strict=True):
        # Functions of C's math library and of CUDA's: a few ulps. The reference of sigmoid is a
        # difference from 1 in float64.
        absolute = 2.0**-52 if name == "sigmoid" else 0.0
        close(result, want, 0 if name in BOOLEAN_OPS else 8, absolute)


def test_every_binary_operation():
    rng = np.random.default_rng(1)
    pairs = [(a, b) for a in EDGES for b in EDGES if np.isfinite([a, b]).all() or a != a]
    a, b = (np.array(v) for v in zip(*pairs, strict=True))
    extra = rng.normal(0, 3, (2, 60)).astype(np.float32).astype(np.float64)
    a, b = np.concatenate([a, extra[0]]), np.concatenate([b, extra[1]])
    names = sorted(BINARY_OPS)
    results = run_all([Binary(n, X0, X1) for n in names], a, b)
    for name, result in zip(names, results, strict=True):
        with np.errstate(all="ignore"):
            want = np.asarray(evaluate(Binary(name, X0, X1), [a, b]), np.float64)
        keep = np.ones(len(a), bool)
        if name in ("floor_div", "mod", "fmod"):  # by zero: C and numpy differ
            keep = b != 0
        if name == "pow":  # float32 has its own overflow
            keep = np.abs(want) < 1e38
        close(result[keep], want[keep], 0 if name in BOOLEAN_OPS else 8)


def test_nan_passes_extrema_and_selection_is_by_condition():
    x = np.array([np.nan, -1.0, 2.0])
    relu, low = Binary("max", X0, Const(0.0)), Binary("min", Const(1.0), X0)
    both = Binary("and", Binary("gt", X0, Const(0.0)), Unary("not", Unary("isinf", X0)))
    results = run_all([relu, low, leaky_relu(X0, Const(0.5)), Select(both, X1, Const(7.0))], x, x)
    np.testing.assert_array_equal(
        results, [[np.nan, 0, 2], [np.nan, -1, 1], [np.nan, -0.5, 2], [7, 7, 2]]
    )


def test_common_subtrees_are_computed_once():
    shared = Unary("exp", X0)
    statements, text = print_cuda_statements(Binary("mul", shared, shared), ["a"], prefix="t")
    assert statements == ["const float t0 = ep_exp_s(a);"]
    assert text == "(t0 * t0)"


def test_literals_and_unknown_operations():
    assert cuda_float_literal(float("inf")) == "EP_INFINITY"
    assert cuda_float_literal(float("-inf")) == "(-EP_INFINITY)"
    assert cuda_float_literal(0.1) == "0x1.99999a0000000p-4f"
    with pytest.raises(ValueError, match="cannot be printed as CUDA"):
        print_cuda(Unary("nonsense", X0), ["a"])


def test_integers():
    assert print_cuda_integer(Binary("add", X0, Const(3.0)), ["n"]) == (
        "(ep_i64)((ep_u64)(n) + (ep_u64)(ep_i64(3)))"
    )
    assert "__builtin" not in print_cuda_integer(Unary("sqrt", X0), ["n"])

"""Printed expressions against numpy, as vectors and as scalars, floats and integers."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, runs_here
from support.typed_kernels import toolchain

from builder_host.codegen.c_expression import float_literal, print_c, print_c_statements
from builder_host.codegen.c_integer_expression import print_c_integer
from builder_host.codegen.toolchain_c import CompiledObject
from builder_host.expressions import (
    BINARY_OPS,
    UNARY_OPS,
    Binary,
    Const,
    Expr,
    Input,
    Select,
    Unary,
    clip,
    evaluate,
    leaky_relu,
    relu,
)

X, Y = Input(0), Input(1)
SHARED = Unary("softplus", Binary("add", X, Y))
EXPRESSIONS: dict[str, Expr] = {
    **{f"unary_{op}": Unary(op, X) for op in UNARY_OPS},
    **{f"binary_{op}": Binary(op, X, Y) for op in BINARY_OPS},
    "relu": relu(X),
    "relu6": clip(X, 0.0, 6.0),
    "leaky": leaky_relu(X, Const(0.1)),
    "mish": Binary("mul", SHARED, Unary("tanh", SHARED)),
    "square": Binary("pow", SHARED, Const(2.0)),
    "cube": Binary("pow", X, Const(3.0)),
    "reciprocal": Binary("pow", X, Const(-1.0)),
    "root": Binary("pow", Unary("abs", X), Const(0.3)),
    "elu": Select(Binary("gt", X, Const(0.0)), X, Binary("sub", Unary("exp", X), Const(1.0))),
    "logic": Binary("and", Binary("lt", X, Y), Unary("not", Binary("eq", Y, Const(1.0)))),
    "truth_of_number": Select(X, Y, Const(-0.0)),
    "infinite": Binary("min", X, Const(float("inf"))),
    "nan": Binary("max", X, Const(float("nan"))),
}


def compiled(source: str, target: Any) -> ctypes.CDLL:
    (found,) = toolchain(target).compile_objects(['#include "ep_vector.h"\n' + source])
    assert isinstance(found, CompiledObject), found.error
    return ctypes.CDLL(str(found.path))


def library(target: Any) -> ctypes.CDLL:
    lines = []
    head = "(const float *a, const float *b, float *y, int64_t n)"
    for name, expr in EXPRESSIONS.items():
        vector = print_c(expr, ["u", "w"], vector=True)
        scalar = print_c(expr, ["u", "w"], vector=False)
        lines.append(
            f"EP_EXPORT void v_{name}{head} {{ for (int64_t i = 0; i < n; i += EP_VL) {{ "
            f"const vf u = ep_load(a + i), w = ep_load(b + i); (void)u; (void)w; "
            f"ep_store(y + i, {vector}); }} }}"
        )
        lines.append(
            f"EP_EXPORT void s_{name}{head} {{ for (int64_t i = 0; i < n; ++i) {{ "
            f"const float u = a[i], w = b[i]; (void)u; (void)w; y[i] = {scalar}; }} }}"
        )
    return compiled("\n".join(lines) + "\n", target)


@pytest.mark.parametrize("target", [AVX512, AVX2], ids=["avx512", "avx2"])
def test_every_operation_matches_numpy(target: Any) -> None:
    if not runs_here(target.isa):
        pytest.skip(f"this machine has no {target.isa}")
    loaded = library(target)
    rng = np.random.default_rng(3)
    a = rng.uniform(-2, 2, 1024).astype(np.float32)
    b = rng.uniform(0.25, 2, 1024).astype(np.float32)
    a[:4], b[:4] = [0.0, 1.0, -1.0, 2.0], [1.0, 1.0, 0.5, 2.0]
    for name, expr in EXPRESSIONS.items():
        results = []
        for prefix in "vs":
            y = np.empty_like(a)
            pointers = [v.ctypes.data_as(ctypes.c_void_p) for v in (a, b, y)]
            getattr(loaded, f"{prefix}_{name}")(*pointers, ctypes.c_int64(a.size))
            results.append(y)
        assert results[0].tobytes() == results[1].tobytes() or np.isnan(results[0]).any(), name
        with np.errstate(all="ignore"):
            wide = [a.astype(np.float64), b.astype(np.float64)]
            wanted = np.broadcast_to(evaluate(expr, wide).astype(np.float64), a.shape)
        # Up to four operations of at most 4 ulp each, conditioned no worse than 4.
        np.testing.assert_allclose(
            results[0], wanted, rtol=64 * 2.0**-24, atol=64 * 2.0**-24, err_msg=name
        )


def test_shared_subtrees_are_printed_once() -> None:
    expr: Expr = X
    for _ in range(60):
        expr = Binary("mul", expr, Unary("sigmoid", expr))
    text = print_c(expr, ["x"], vector=True)
    assert text.count("ep_sigmoid_v") == 60
    statements, result = print_c_statements(expr, ["x"], vector=False, prefix="q")
    assert len(statements) == 59
    assert "q58" in result


def test_relu_is_one_instruction_and_a_leaky_relu_one_blend() -> None:
    assert print_c(relu(X), ["x"], vector=True) == "ep_max_const_first(ep_splat(0.0f), x)"
    text = print_c(leaky_relu(X, Const(0.5)), ["x"], vector=True)
    assert text == "ep_select((x >= ep_splat(0.0f)), x, (x * ep_splat(0x1.0000000000000p-1f)))"


def test_literals_are_exact_in_float32() -> None:
    assert float_literal(0.1) == f"{float(np.float32(0.1)).hex()}f"
    assert float_literal(-2.0) == "(-2.0f)"
    assert float_literal(1e60) == "__builtin_inff()"


def test_unknown_operation_is_named() -> None:
    with pytest.raises(ValueError, match="'bessel' cannot be printed"):
        print_c(Unary("bessel", X), ["x"], vector=True)


def test_integers_stay_exact() -> None:
    cases: dict[str, tuple[Expr, Any]] = {
        "add": (Binary("add", X, Y), lambda a, b: a + b),
        "mul_const": (Binary("mul", X, Const(3.0)), lambda a, b: a * 3),
        "floor_div": (Binary("floor_div", X, Y), lambda a, b: a // b),
        "mod": (Binary("mod", X, Y), lambda a, b: a % b),
        "fmod": (Binary("fmod", X, Y), np.fmod),
        "div": (Binary("div", X, Y), lambda a, b: np.trunc(a / b).astype(np.int64)),
        "floor_of_div": (
            Unary("floor", Binary("div", X, Y)),
            lambda a, b: np.floor(a / b).astype(np.int64),
        ),
        "max": (Binary("max", X, Y), np.maximum),
        "less": (Binary("lt", X, Y), lambda a, b: (a < b).astype(np.int64)),
        "abs": (Unary("abs", Unary("neg", X)), lambda a, b: np.abs(a)),
        "sign": (Unary("sign", X), lambda a, b: np.sign(a)),
        "pick": (Select(Binary("gt", X, Const(0.5)), X, Y), lambda a, b: np.where(a > 0, a, b)),
        "root": (
            Unary("sqrt", Unary("abs", X)),
            lambda a, b: np.trunc(np.sqrt(np.abs(a))).astype(np.int64),
        ),
    }
    lines = [
        f"EP_EXPORT void f_{name}(const int64_t *a, const int64_t *b, int64_t *y, int64_t n) {{ "
        f"for (int64_t i = 0; i < n; ++i) {{ const int64_t u = a[i], w = b[i]; (void)u; (void)w; "
        f"y[i] = {print_c_integer(expr, ['u', 'w'])}; }} }}"
        for name, (expr, _) in cases.items()
    ]
    target = AVX2
    if not runs_here(target.isa):
        pytest.skip("this machine has no AVX2")
    loaded = compiled("\n".join(lines) + "\n", target)
    rng = np.random.default_rng(5)
    a = rng.integers(-1000, 1000, 500)
    b = rng.integers(1, 30, 500) * rng.choice([-1, 1], 500)
    a[0], b[0] = 2**40 + 1, 7
    for name, (_, exact) in cases.items():
        y = np.zeros_like(a)
        pointers = [v.ctypes.data_as(ctypes.c_void_p) for v in (a, b, y)]
        getattr(loaded, f"f_{name}")(*pointers, ctypes.c_int64(a.size))
        np.testing.assert_array_equal(y, exact(a, b), err_msg=name)

"""Elementwise functions of ep_math.h against float64, and vector against scalar, bit for bit."""

from __future__ import annotations

import ctypes
import functools
import math
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.cpu_kernels import AVX2, AVX512, NEON, runs_here
from support.typed_kernels import store_of_the_run, toolchain

from builder_host.codegen.toolchain_c import CompiledObject, CToolchain

Array = np.ndarray[Any, Any]
TARGETS = {"avx512": AVX512, "avx2": AVX2}


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def erf(x: Array) -> Array:
    return np.array([math.erf(v) for v in x])


# name -> (float64 function, largest error in ulp, largest magnitude of the argument)
UNARY: dict[str, tuple[Callable[[Array], Array], float, float]] = {
    "exp": (np.exp, 1.0, math.inf),
    "log": (np.log, 1.0, math.inf),
    "log1p": (np.log1p, 2.0, math.inf),
    "expm1": (np.expm1, 4.0, math.inf),
    "tanh": (np.tanh, 2.0, math.inf),
    "sigmoid": (sigmoid, 3.0, math.inf),
    "softplus": (lambda x: np.logaddexp(x, 0), 3.0, math.inf),
    "erf": (erf, 2.0, math.inf),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 1.5, math.inf),
    "recip": (lambda x: 1 / x, 0.5, math.inf),
    "sinh": (np.sinh, 4.0, math.inf),
    "cosh": (np.cosh, 3.0, math.inf),
    "sin": (np.sin, 2.0, 1e8),
    "cos": (np.cos, 2.0, 1e8),
    "tan": (np.tan, 4.0, 1e8),
    "atan": (np.arctan, 3.0, math.inf),
    "asin": (np.arcsin, 3.0, math.inf),
    "acos": (np.arccos, 4.0, math.inf),
    "asinh": (np.arcsinh, 2.0, math.inf),
    "acosh": (np.arccosh, 3.0, math.inf),
    "atanh": (np.arctanh, 3.0, math.inf),
    "sign": (np.sign, 0.0, math.inf),
    "floor": (np.floor, 0.0, math.inf),
    "ceil": (np.ceil, 0.0, math.inf),
    "trunc": (np.trunc, 0.0, math.inf),
    "round": (np.rint, 0.0, math.inf),
    "sqrt": (np.sqrt, 0.5, math.inf),
    "abs": (np.abs, 0.0, math.inf),
}
BINARY: dict[str, tuple[Callable[[Array, Array], Array], float]] = {
    "pow": (np.power, 1.0),
    "floor_div": (np.floor_divide, 0.0),
    "mod": (np.mod, 0.5),
    "fmod": (np.fmod, 0.0),
}
PROTOTYPE = "(const float *x, const float *z, float *y, int64_t n)"


def source() -> str:
    lines = ['#include "ep_vector.h"']
    for name in (*UNARY, *BINARY):
        both = name in BINARY
        vector = "ep_load(x + i), ep_load(z + i)" if both else "ep_load(x + i)"
        scalar = "x[i], z[i]" if both else "x[i]"
        lines.append(
            f"EP_EXPORT void v_{name}{PROTOTYPE} {{ (void)z; for (int64_t i = 0; i < n; "
            f"i += EP_VL) ep_store(y + i, ep_{name}_v({vector})); }}"
        )
        lines.append(
            f"EP_EXPORT void s_{name}{PROTOTYPE} {{ (void)z; for (int64_t i = 0; i < n; ++i) "
            f"y[i] = ep_{name}_s({scalar}); }}"
        )
    for name in ("max", "min"):
        lines.append(
            f"EP_EXPORT void v_{name}{PROTOTYPE} {{ for (int64_t i = 0; i < n; i += EP_VL) "
            f"ep_store(y + i, ep_{name}(ep_load(x + i), ep_load(z + i))); }}"
        )
        lines.append(
            f"EP_EXPORT void s_{name}{PROTOTYPE} {{ for (int64_t i = 0; i < n; ++i) "
            f"y[i] = ep_{name}_s(x[i], z[i]); }}"
        )
    lines.append(
        f"EP_EXPORT void partial{PROTOTYPE} {{ (void)z; ep_store_n(y, ep_load_n(x, n), n); }}"
    )
    lines.append(
        f"EP_EXPORT void across{PROTOTYPE} {{ (void)z; (void)n; const vf a = ep_load(x); "
        "y[0] = ep_sum(a); y[1] = ep_lanes_max(a); y[2] = ep_lanes_min(a); }"
    )
    lines.append(f"EP_EXPORT void tile{PROTOTYPE} {{ (void)z; ep_copy_tile(y, EP_VL, x, n); }}")
    return "\n".join(lines) + "\n"


@functools.cache
def library(isa: str, compiler: str) -> ctypes.CDLL:
    tools = CToolchain(TARGETS[isa], compiler=compiler, store=store_of_the_run(), jobs=1)
    (compiled,) = tools.compile_objects([source()])
    assert isinstance(compiled, CompiledObject), compiled.error
    return ctypes.CDLL(str(compiled.path))


@pytest.fixture(params=[("avx512", "zig"), ("avx2", "zig"), ("avx512", "gcc"), ("avx2", "gcc")])
def functions(request: pytest.FixtureRequest) -> Callable[..., Array]:
    isa, compiler = request.param
    if not runs_here(isa):
        pytest.skip(f"this machine has no {isa}")
    if compiler != "zig" and shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    loaded = library(isa, compiler)

    def call(name: str, x: Array, z: Array | None = None, n: int | None = None) -> Array:
        y = np.zeros_like(x)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, x if z is None else z, y)]
        getattr(loaded, name)(*pointers, ctypes.c_int64(x.size if n is None else n))
        return y

    return call


def arguments(limit: float) -> Array:
    rng = np.random.default_rng(0)
    size = 1 << 15
    bits = rng.integers(0, 2**32, 2 * size, dtype=np.uint32).view(np.float32)
    special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -0.5, 1e-45, 3.4e38]
    parts = [
        rng.normal(0, 1, size),
        rng.normal(0, 10, size),
        rng.uniform(-110, 100, size),
        rng.uniform(-1.1, 1.1, size),
        rng.uniform(0.5, 2, size),
        np.array(special + [0.25] * 3),
    ]
    found = np.concatenate([bits, *(part.astype(np.float32) for part in parts)])
    found[np.isnan(found)] = np.nan  # quiet
    if math.isfinite(limit):
        found = np.where(np.abs(found) <= limit, found, np.float32(0.3)).astype(np.float32)
    return found


def assert_close(y: Array, exact: Array, ulp: float) -> None:
    rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
    wild = np.isinf(y) | np.isinf(rounded)
    np.testing.assert_array_equal(y[wild & ~np.isnan(y)], rounded[wild & ~np.isnan(y)])
    plain = ~wild & ~np.isnan(y)
    grain = np.spacing(np.maximum(np.abs(rounded[plain]), np.float32(2.0**-126)))
    error = np.abs(y[plain].astype(np.float64) - exact[plain]) / grain
    assert error.max() <= ulp + 1e-3


def assert_same_bits(a: Array, b: Array) -> None:
    same = (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))
    assert same.all()


@pytest.mark.parametrize("name", UNARY)
def test_function_meets_its_stated_error(name: str, functions: Callable[..., Array]) -> None:
    exact, ulp, limit = UNARY[name]
    x = arguments(limit)
    with np.errstate(all="ignore"):
        wanted = exact(x.astype(np.float64))
        found = functions(f"v_{name}", x)
        assert_close(found, wanted, ulp)
    assert_same_bits(found, functions(f"s_{name}", x))


@pytest.mark.parametrize("name", BINARY)
def test_binary_function_meets_its_stated_error(name: str, functions: Callable[..., Array]) -> None:
    exact, ulp = BINARY[name]
    rng = np.random.default_rng(1)
    size = 1 << 16
    if name == "pow":
        corner = np.array(
            [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2, -2, 3, -3, 0.5, -0.5, 1e-45, 3.4e38, 9e9]
        )
        grid = np.meshgrid(corner, corner)
        x = np.concatenate([np.exp(rng.uniform(-20, 20, size)), rng.normal(0, 3, size)])
        z = np.concatenate([rng.normal(0, 3, size), rng.integers(-20, 20, size)])
        x, z = np.concatenate([x, grid[0].ravel()]), np.concatenate([z, grid[1].ravel()])
    else:  # exact while the quotient stays below 2^22
        x = np.concatenate([rng.normal(0, 100, size), rng.integers(-100, 100, size)])
        z = np.concatenate([rng.normal(0, 1, size), rng.choice([-7, -3, 1, 2, 5], size)])
        z = np.where(np.abs(z) < 1e-3, 1.0, z)
    x, z = x.astype(np.float32), z.astype(np.float32)
    with np.errstate(all="ignore"):
        wanted = exact(x.astype(np.float64), z.astype(np.float64))
        found = functions(f"v_{name}", x, z)
        assert_close(found, wanted, ulp)
    assert_same_bits(found, functions(f"s_{name}", x, z))


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremum_keeps_nan_of_either_side(name: str, functions: Callable[..., Array]) -> None:
    corner = np.array([0, 1, -1, np.inf, -np.inf, np.nan, 2, -2], np.float32)
    x, z = (np.ascontiguousarray(g).ravel() for g in np.meshgrid(corner, corner))
    wanted = np.maximum(x, z) if name == "max" else np.minimum(x, z)
    for prefix in "vs":
        np.testing.assert_array_equal(functions(f"{prefix}_{name}", x, z), wanted)


def test_partial_vectors_touch_only_their_lanes(functions: Callable[..., Array]) -> None:
    x = np.arange(1, 17, dtype=np.float32)
    for count in range(5):
        wanted = np.where(np.arange(16) < count, x, 0)
        np.testing.assert_array_equal(functions("partial", x, n=count), wanted)


def test_reductions_across_lanes(functions: Callable[..., Array]) -> None:
    x = np.arange(1, 17, dtype=np.float32)
    total, largest, smallest = functions("across", x)[:3]
    assert total in (36.0, 136.0)  # 8 or 16 lanes
    assert largest in (8.0, 16.0)
    assert smallest == 1.0


def test_tile_is_transposed(functions: Callable[..., Array]) -> None:
    x = np.arange(400, dtype=np.float32)
    y = functions("tile", x, n=20)
    lanes = 16 if y[255] else 8
    tile = x.reshape(20, 20)[:lanes, :lanes]
    np.testing.assert_array_equal(y[: lanes * lanes].reshape(lanes, lanes), tile.T)


def test_header_compiles_for_neon() -> None:
    (compiled,) = toolchain(NEON).compile_objects([source()])
    assert isinstance(compiled, CompiledObject), compiled.error

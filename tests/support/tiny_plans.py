"""Hand-made plans for runtime tests: a small C file, compiled once, and plans around it."""

from __future__ import annotations

import functools
import os
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from builder_host.codegen import c_support
from planformat.canary import canary_input
from planformat.datatypes import DataType
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import (
    Argument,
    ArgumentKind,
    Binding,
    Canary,
    CodeKind,
    CodeObject,
    Kernel,
    Plan,
    Profile,
    Step,
    Variant,
)
from runtime_edge.probe import probe_device

NUM_ELEMS = 1000
NUM_UNITS = 10
SCALE, SHIFT = 0.5, 3.0

KERNELS = r"""
#include <stdint.h>
#define EP_EXPORT __attribute__((visibility("default")))

/* y = x * w[0]; one unit is 100 elements. */
EP_EXPORT void scale(void *const *args, int64_t begin, int64_t end, void *scratch) {
    const float *x = args[0], *w = args[1];
    float *y = args[2];
    (void)scratch;
    for (int64_t i = begin * 100; i < end * 100; ++i) y[i] = x[i] * w[0];
}

/* y = x + w[1], through the worker's scratch memory. */
EP_EXPORT void shift(void *const *args, int64_t begin, int64_t end, void *scratch) {
    const float *x = args[0], *w = args[1];
    float *y = args[2], *copy = scratch;
    for (int64_t u = begin; u < end; ++u) {
        for (int i = 0; i < 100; ++i) copy[i] = x[u * 100 + i];
        for (int i = 0; i < 100; ++i) y[u * 100 + i] = copy[i] + w[1];
    }
}

/* y[0] = the immediate number of times sum(x), computed slowly. */
EP_EXPORT void slow_sum(void *const *args, int64_t begin, int64_t end, void *scratch) {
    const float *x = args[0];
    float *y = args[1];
    const int64_t times = (int64_t)(intptr_t)args[2];
    (void)scratch;
    for (int64_t u = begin; u < end; ++u) {
        double sum = 0;
        for (int64_t t = 0; t < times; ++t)
            for (int i = 0; i < 1000; ++i) sum += x[i];
        y[u] = (float)sum;
    }
}
"""
SYMBOLS = ("scale", "shift", "slow_sum")
OTHER_ABI = "#define EDGEPLAN_CPU_ABI_VERSION"


@functools.cache
def code(abi_version: int = 1, *, with_support: bool = True) -> bytes:
    """A shared object with the kernels and the CPU support code."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernels.c").write_text(KERNELS)
        for path in (*c_support.SOURCE_FILES, *c_support.INCLUDE_FILES):
            text = path.read_text().replace(f"{OTHER_ABI} 1", f"{OTHER_ABI} {abi_version}")
            (Path(folder) / path.name).write_text(text)
        sources = ["kernels.c"]
        if with_support:
            sources += [path.name for path in c_support.SOURCE_FILES]
        command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-std=gnu11", "-fPIC", "-shared"]
        command += ["-fno-sanitize=all", "-fvisibility=hidden", "-g0", *sources, "-o", "code.so"]
        subprocess.run([*command, *c_support.LINK_FLAGS], cwd=folder, check=True)
        return (Path(folder) / "code.so").read_bytes()


def plan(
    *,
    fingerprint: DeviceFingerprint | None = None,
    num_workers: int = 1,
    canary: bool = True,
    canary_error: float = 0.0,
    code_object: CodeObject | None = None,
    slow_times: int = 0,
    num_pairs: int = 1,
) -> Plan:
    """The plan `y = (x * 0.5) + 3`, and in profile `slow` also a sum that takes a while.

    Args:
        fingerprint: of its only variant; None is this machine's.
        num_workers: of all profiles.
        canary: whether the first profile has one.
        canary_error: added to its first expected value.
        code_object: None is `code()`.
        slow_times: repetitions of the sum, about 1 µs each and unit.
        num_pairs: how often scale and shift are repeated (each on its own result).
    """
    binding, arena = ArgumentKind.BINDING, ArgumentKind.ARENA
    weights = Argument(ArgumentKind.WEIGHTS, 0)
    row = 4 * NUM_ELEMS
    steps = []
    for pair in range(num_pairs):
        is_last = pair == num_pairs - 1
        source = Argument(binding, 0) if pair == 0 else Argument(arena, 8192)
        target = Argument(binding, 1) if is_last else Argument(arena, 8192)
        units = (NUM_UNITS, 1, 1)
        middle = Argument(arena, 64)
        steps.append(Step(f"scale{pair}", 0, units, (source, weights, middle), tactic="t0"))
        steps.append(
            Step(
                f"shift{pair}",
                1,
                units,
                (middle, weights, target),
                scratch_bytes_per_worker=400,
                tactic="t1",
            )
        )
    shape = (1, NUM_ELEMS)
    bindings = (Binding("x", True, DataType.FLOAT32), Binding("y", False, DataType.FLOAT32))
    values = struct.unpack(f"<{NUM_ELEMS}f", canary_input(7, 0, NUM_ELEMS, DataType.FLOAT32))
    expected = [expected_value(value, num_pairs) for value in values[::10]]
    expected[0] += canary_error
    outputs = (struct.pack(f"<{len(expected)}f", *expected),)
    fast = Profile(
        "fast",
        (shape, shape),
        tuple(steps),
        arena_bytes=8192 + row,
        arena_lower_bound_bytes=row,
        num_workers=num_workers,
        canary=Canary(7, (10,), outputs, 1e-6, 0.0, 12.5) if canary else None,
    )
    slow_step = Step(
        "slow",
        2,
        (NUM_UNITS, 1, 1),
        (
            Argument(binding, 0),
            Argument(binding, 1),
            Argument(ArgumentKind.IMMEDIATE, slow_times),
        ),
    )
    slow = replace(
        fast,
        name="slow",
        steps=(slow_step,),
        shapes=(shape, (1, NUM_UNITS)),
        canary=None,
        arena_bytes=0,
        arena_lower_bound_bytes=0,
    )
    variant = Variant(
        fingerprint or probe_device(),
        (code_object or CodeObject(CodeKind.SHARED_OBJECT, os.uname().machine, "zig", code()),),
        tuple(Kernel(symbol, 0) for symbol in SYMBOLS),
        (fast, slow),
    )
    data = struct.pack("<2f", SCALE, SHIFT)
    return Plan("tiny", bindings, (variant,), data, (len(data),), {"made_by": "tests"})


def expected_value(x: float, num_pairs: int = 1) -> float:
    """What the plan computes for one element; exact for canary inputs and one pair."""
    for _ in range(num_pairs):
        x = x * SCALE + SHIFT
    return x

"""Small plans for tests of the daemon: batched, with two inputs, and slow."""

from __future__ import annotations

import functools
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from planformat.canary import canary_input
from planformat.datatypes import DataType
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
from planformat.writer import save_plan
from runtime_edge.probe import probe_device
from support.tiny_plans import SYMBOLS, code

UNIT_ELEMS = 100
SCALE = 0.5


def scale_plan(
    rows: tuple[int, ...] = (1,), *, row_elems: int = 1000, scale: float = SCALE
) -> Plan:
    """`y = x * scale`, x and y of shape (rows, row_elems), one profile for each of `rows`.

    Args:
        rows: first dimensions.
        row_elems: a multiple of 100.
        scale: also tells versions of the plan apart.
    """
    shapes = [(num, row_elems) for num in rows]
    profiles = [
        _scale_profile(f"b{shape[0]}", shape, Argument(ArgumentKind.WEIGHTS, 0), (shape, shape))
        for shape in shapes
    ]
    profiles[0] = _with_canary(profiles[0], shapes[0], scale)
    bindings = (Binding("x", True, DataType.FLOAT32), Binding("y", False, DataType.FLOAT32))
    return _plan("scale", bindings, profiles, struct.pack("<2f", scale, 0.0))


def two_input_plan() -> Plan:
    """`y = x * w[0]`; x and y of shape (1, 1000), w of shape (2,)."""
    shape = (1, 1000)
    profile = _scale_profile(
        "default", shape, Argument(ArgumentKind.BINDING, 1), (shape, (2,), shape), output=2
    )
    bindings = (
        Binding("x", True, DataType.FLOAT32),
        Binding("w", True, DataType.FLOAT32),
        Binding("y", False, DataType.FLOAT32),
    )
    return _plan("two", bindings, [profile], b"")


def slow_plan(times: int = 1000, *, row_elems: int = 1000) -> Plan:
    """`y[i]`: the sum of x's first 1000, `times` times over, about 10 µs each; y (1, 10).

    Args:
        times: repetitions.
        row_elems: x is (1, row_elems).
    """
    step = Step(
        "slow",
        2,
        (10, 1, 1),
        (
            Argument(ArgumentKind.BINDING, 0),
            Argument(ArgumentKind.BINDING, 1),
            Argument(ArgumentKind.IMMEDIATE, times),
        ),
    )
    profile = Profile("default", ((1, row_elems), (1, 10)), (step,), 0, 0)
    bindings = (Binding("x", True, DataType.FLOAT32), Binding("y", False, DataType.FLOAT32))
    return _plan("slow", bindings, [profile], b"")


def save(plan: Plan, path: Path) -> Path:
    """Write a plan, in one step; returns the path."""
    save_plan(plan, path)
    return path


def row_input(value: float = 1.0, rows: int = 1, row_elems: int = 1000) -> np.ndarray:
    """Input of `scale_plan`: every row counts up from `value`."""
    row = np.arange(row_elems, dtype=np.float32) + np.float32(value)
    return np.tile(row, (rows, 1)) + np.arange(rows, dtype=np.float32)[:, None]


def _scale_profile(
    name: str,
    shape: tuple[int, int],
    factor: Argument,
    shapes: tuple[tuple[int, ...], ...],
    output: int = 1,
) -> Profile:
    step = Step(
        "scale",
        0,
        (shape[0] * shape[1] // UNIT_ELEMS, 1, 1),
        (Argument(ArgumentKind.BINDING, 0), factor, Argument(ArgumentKind.BINDING, output)),
    )
    return Profile(name, shapes, (step,), 4096, 0)


def _with_canary(profile: Profile, shape: tuple[int, int], scale: float) -> Profile:
    num = shape[0] * shape[1]
    values = np.frombuffer(canary_input(7, 0, num, DataType.FLOAT32), np.float32)
    expected = (values[::10] * np.float32(scale)).tobytes()
    return replace(profile, canary=Canary(7, (10,), (expected,), 1e-6, 0.0, 5.0))


@functools.cache
def _code_object() -> CodeObject:
    return CodeObject(CodeKind.SHARED_OBJECT, os.uname().machine, "zig", code())


def _plan(
    name: str, bindings: tuple[Binding, ...], profiles: list[Profile], weights: bytes
) -> Plan:
    variant = Variant(
        probe_device(),
        (_code_object(),),
        tuple(Kernel(symbol, 0) for symbol in SYMBOLS),
        tuple(profiles),
    )
    chunks = (len(weights),) if weights else ()
    return Plan(name, bindings, (variant,), weights, chunks, {"made_by": "tests"})

"""Kernels of narrow types: problems with data, references, runs here or under an emulator.

References share nothing with the kernels: sums in int64, epilogues in numpy float32, one operation
after the other.
"""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.toolchain_c import CompiledObject, CToolchain
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
)
from builder_host.kernels.family import Problem, Program, Tactic
from builder_host.layouts import Layout, dense_layout
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from builder_host.targets.cuda import CudaTarget
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat
from support.aarch64_emulator import emulator, run_emulated
from support.cpu_kernels import AVX2, AVX512, NEON
from support.typed_kernels import NUMPY_TYPES as PLAIN_TYPES
from support.window_cases import WindowCase

Array = np.ndarray[Any, Any]

I8, U8, F32 = DataType.INT8, DataType.UINT8, DataType.FLOAT32
BF16 = DataType.BFLOAT16
NUMPY_TYPES: dict[DataType, Any] = {**PLAIN_TYPES, BF16: ml_dtypes.bfloat16}
TARGETS = {
    "avx512-vnni": replace(AVX512, features=("avx512bf16", "avx512vnni")),
    "avx512": AVX512,
    "avx2-vnni": replace(AVX2, features=("avxvnni",)),
    "avx2": AVX2,
    "neon-dotprod": replace(NEON, features=("dotprod",)),
    "neon": NEON,
}
_FLAGS = {
    "avx512": "avx512vl",
    "avx512-vnni": "avx512_bf16",  # later CPUs than those with avx512_vnni alone
    "avx2": "avx2",
    "avx2-vnni": "avx_vnni",
}
_RANGE = {I8: (-128.0, 127.0), U8: (0.0, 255.0)}


def where_it_runs(name: str) -> str:
    """`here`, `emulator` or empty: how code for a target of `TARGETS` can run."""
    if name.startswith("neon"):
        return "emulator" if emulator() else ""
    flags = Path("/proc/cpuinfo")
    return "here" if flags.exists() and _FLAGS[name] in flags.read_text().split() else ""


# --- problems -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case8(WindowCase):
    """A convolution of 8-bit tensors; `residual` adds a tensor of that type in the epilogue."""

    x: DataType = I8
    y: DataType = I8
    residual: DataType | None = None
    relu: bool = True
    raw: bool = False  # no epilogue: the sums themselves
    has_gaps: bool = False
    workers: int = 1

    def __str__(self) -> str:
        types = "-".join(t.text for t in (self.x, self.y, self.residual) if t)
        return f"{self.extents()}-{types}" + ("-gaps" if self.has_gaps else "")


def needs(name: str) -> str:
    """Where a target of `TARGETS` runs; skips the test when nowhere."""
    where = where_it_runs(name)
    if not where:
        pytest.skip(f"{name} runs neither here nor in an emulator")
    return where


def with_gaps(layout: Layout) -> Layout:
    """The same tensor as a part of a larger one."""
    block = layout.format.channel_block
    width = layout.shape[3] + 1
    h, c = width * block, width * block * layout.shape[2] + 3 * block
    strides = (c * (layout.num_channel_blocks + 2), c, h, layout.strides[3])
    return replace(layout, strides=strides)


def requantised(value: Expr, inverse_scale: float, dtype: DataType) -> Expr:
    """Value times a factor, rounded half to even and clipped; the value itself for floats."""
    if dtype is F32:
        return value
    low, high = _RANGE[dtype]
    return clip(Unary("round", Binary("mul", value, Const(inverse_scale))), low, high)


def scaled_epilogue(y: DataType, *, residual: bool, relu: bool, factor: float) -> Epilogue:
    """x0 * x1 + x2 (+ x3 * scale), ReLU, requantised: scale and bias per channel, a residual."""
    value: Expr = Binary("add", Binary("mul", Input(0), Input(1)), Input(2))
    if residual:
        value = Binary("add", value, Binary("mul", Input(3), Const(0.0371)))
    if relu:
        value = Binary("max", value, Const(0.0))
    return Epilogue(requantised(value, factor, y), 3 if residual else 2)


def convolution_problem(case: Case8, target: CpuTarget | CudaTarget) -> Problem:
    """The case in the target's blocked format."""
    blocked = target.blocked_format
    x = dense_layout(
        TensorType((case.batch, case.channels, case.height, case.width), case.x), blocked
    )
    weights = (case.filters, case.channels // case.groups, *case.kernel)
    extents = [
        (size + begin + end - (k - 1) * d - 1) // s + 1
        for size, begin, end, k, d, s in zip(
            (case.height, case.width), case.pads[:2], case.pads[2:], case.kernel,
            case.dilations, case.strides, strict=True,
        )
    ]  # fmt: skip
    shape = (case.batch, case.filters, *extents)
    y = dense_layout(TensorType(shape, case.y), blocked)
    if case.has_gaps:
        x, y = with_gaps(x), with_gaps(y)
    inputs = [x, dense_layout(TensorType(weights, I8))]
    constant = [False, True]
    epilogue = None
    if not case.raw:
        channel = dense_layout(TensorType((case.filters, 1, 1)))
        inputs += [channel, channel]
        constant += [True, True]
        if case.residual is not None:
            layout = dense_layout(TensorType(shape, case.residual), blocked)
            inputs.append(with_gaps(layout) if case.has_gaps else layout)
            constant.append(False)
        epilogue = scaled_epilogue(
            case.y, residual=case.residual is not None, relu=case.relu, factor=7.3
        )
    params = ConvolutionParams(
        case.strides, case.pads[:2], case.pads[2:], case.dilations, case.groups
    )
    return Problem(
        "convolution", params, tuple(inputs), tuple(constant), (y,), epilogue, case.workers
    )


def random_inputs(problem: Problem, seed: int = 0) -> list[Array]:
    """Integers over the whole range of their type, both ends included; small positive scales."""
    rng = np.random.default_rng(seed)
    terms = max(1, int(np.prod(problem.inputs[1].shape[1:]))) if len(problem.inputs) > 1 else 1
    arrays: list[Array] = []
    for number, layout in enumerate(problem.inputs):
        if layout.dtype in _RANGE:
            low, high = _RANGE[layout.dtype]
            values = rng.integers(int(low), int(high) + 1, layout.shape)
            if values.size > 1:
                values.reshape(-1)[:2] = (int(low), int(high))
            arrays.append(values.astype(NUMPY_TYPES[layout.dtype]))
        elif number == problem.num_own_inputs and problem.is_constant[number]:
            scale = 1.0 / (5500.0 * terms**0.5)  # sums of products have this deviation
            arrays.append((scale * rng.uniform(0.5, 1.5, layout.shape)).astype(np.float32))
        else:
            arrays.append(rng.standard_normal(layout.shape).astype(np.float32))
    return arrays


# --- references ---------------------------------------------------------------------------------


def integer_convolution(params: ConvolutionParams, x: Array, weights: Array) -> Array:
    """Exact sums in int64, tap by tap."""
    (top, left), (bottom, right) = params.pads_begin, params.pads_end
    x = x.astype(np.int64)[:, :, max(-top, 0) :, max(-left, 0) :]
    x = x[:, :, : x.shape[2] + min(bottom, 0), : x.shape[3] + min(right, 0)]
    pads = [(max(p, 0), max(q, 0)) for p, q in ((0, 0), (0, 0), (top, bottom), (left, right))]
    x = np.pad(x, pads)
    n, _, height, width = x.shape
    filters, per_group, kernel_h, kernel_w = weights.shape
    (stride_h, stride_w), (dilation_h, dilation_w) = params.strides, params.dilations
    out_h = (height - (kernel_h - 1) * dilation_h - 1) // stride_h + 1
    out_w = (width - (kernel_w - 1) * dilation_w - 1) // stride_w + 1
    groups = params.groups
    total = np.zeros((n, groups, filters // groups, out_h, out_w), np.int64)
    w = weights.astype(np.int64).reshape(groups, filters // groups, per_group, kernel_h, kernel_w)
    for kh in range(kernel_h):
        for kw in range(kernel_w):
            rows = slice(kh * dilation_h, kh * dilation_h + (out_h - 1) * stride_h + 1, stride_h)
            columns = slice(kw * dilation_w, kw * dilation_w + (out_w - 1) * stride_w + 1, stride_w)
            part = x[:, :, rows, columns].reshape(n, groups, per_group, out_h, out_w)
            total += np.einsum("ngchw,gkc->ngkhw", part, w[..., kh, kw])
    return total.reshape(n, filters, out_h, out_w)


def evaluate_float32(expr: Expr, operands: Sequence[Array]) -> Array:
    """An expression in float32, every operation rounded."""
    match expr:
        case Input(index=index):
            return operands[index].astype(np.float32)
        case Const(value=value):
            return np.asarray([value], np.float32)[0]
        case Unary(op=op, x=x):
            return UNARY_OPS[op](evaluate_float32(x, operands)).astype(np.float32)
        case Binary(op=op, a=a, b=b):
            sides = evaluate_float32(a, operands), evaluate_float32(b, operands)
            return BINARY_OPS[op](*sides).astype(np.float32)
        case Select(condition=condition, a=a, b=b):
            chosen = evaluate_float32(condition, operands).astype(bool)
            return np.where(chosen, evaluate_float32(a, operands), evaluate_float32(b, operands))


def finished(problem: Problem, sums: Array, inputs: Sequence[Array]) -> Array:
    """The output for exact sums (integers, or float32 already): epilogue and conversion."""
    result = sums.astype(np.float32)
    if problem.epilogue is not None:
        operands = inputs[problem.num_own_inputs :]
        result = evaluate_float32(problem.epilogue.expr, [result, *operands])
    y = problem.outputs[0]
    return np.broadcast_to(result, y.shape).astype(NUMPY_TYPES[y.dtype])


# --- running ------------------------------------------------------------------------------------


@functools.cache
def _store() -> tuple[tempfile.TemporaryDirectory[str], ArtifactStore]:
    folder = tempfile.TemporaryDirectory(prefix="edgeplan-int8-")
    return folder, ArtifactStore(folder.name)


def compiled(source: str, target: CpuTarget) -> Path:
    """The shared object of a source, through the builder's toolchain."""
    tools = CToolchain(target, store=_store()[1], jobs=2)
    (found,) = tools.compile_objects([source])
    assert isinstance(found, CompiledObject), found.error + source
    return found.path


def run_tactic(
    family: Any, problem: Problem, tactic: Tactic, target: CpuTarget, inputs: Sequence[Array]
) -> Array:
    """First output of one tactic.

    Gaps and padded lanes of inputs hold 0xff, outputs are checked for writes outside their own
    elements, and every unit run alone in reverse order must give equal bits.
    """
    assert family.applies(problem, target), problem.text()
    assert family.estimate_us(problem, target) > 0
    program: Program = family.generate(problem, tactic, target)
    assert family.generate(problem, tactic, target) == program
    constants = [v if c else None for v, c in zip(inputs, problem.is_constant, strict=True)]
    packed = family.pack(problem, tactic, target, constants)
    buffers: list[Array] = []
    for values, layout, ready in zip(inputs, problem.inputs, packed, strict=True):
        if ready is not None:
            buffers.append(_aligned(np.ascontiguousarray(ready).reshape(-1).view(np.uint8)))
            continue
        buffer = _aligned(np.full(layout.stored_bytes, 0xFF, np.uint8))
        _write(buffer.view(NUMPY_TYPES[layout.dtype]), layout, values)
        buffers.append(buffer)
    y = problem.outputs[0]
    results = []
    for is_split in (False, True):
        output = _aligned(np.full(y.stored_bytes, 0xAB, np.uint8))
        if target.architecture == "aarch64":
            output = _run_emulated(program, target, buffers, output, is_split)
        else:
            _run_here(program, target, buffers, output, is_split)
        flat = output.view(NUMPY_TYPES[y.dtype])
        owned = np.zeros(flat.shape, np.uint8)
        _view(owned, y)[...] = 1
        untouched = flat[owned == 0].view(np.uint8)
        assert (untouched == 0xAB).all(), "a write outside the output"
        results.append(_read(flat, y))
    assert results[0].tobytes() == results[1].tobytes(), "the result depends on the split of units"
    return results[0]


def _aligned(values: Array) -> Array:
    raw = np.zeros(values.size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + values.size]
    array[:] = values
    return array


def _spans(num_units: int, is_split: bool) -> list[tuple[int, int]]:
    return [(u, u + 1) for u in reversed(range(num_units))] if is_split else [(0, num_units)]


def _run_here(
    program: Program, target: CpuTarget, buffers: Sequence[Array], output: Array, is_split: bool
) -> None:
    library = ctypes.CDLL(str(compiled(program.source, target)))
    workspace = _aligned(np.zeros(program.workspace_bytes, np.uint8))
    pointers = [a.ctypes.data for a in (*buffers, output, workspace)]
    arguments = (ctypes.c_void_p * len(pointers))(*pointers)
    for launch in program.launches:
        scratch = _aligned(np.full(launch.scratch_bytes_per_worker + 64, 0xCD, np.uint8))
        function = getattr(library, launch.symbol)
        function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        function.restype = None
        for begin, end in _spans(launch.num_units, is_split):
            function(arguments, begin, end, scratch.ctypes.data)
        assert (scratch[launch.scratch_bytes_per_worker :] == 0xCD).all(), "scratch overrun"


def _run_emulated(
    program: Program, target: CpuTarget, buffers: Sequence[Array], output: Array, is_split: bool
) -> Array:
    """The same under the emulator; returns the output."""
    calls = [
        (launch.symbol, begin, end)
        for launch in program.launches
        for begin, end in _spans(launch.num_units, is_split)
    ]
    workspace = np.zeros(program.workspace_bytes + 1, np.uint8)
    found = run_emulated(
        program.source,
        [*buffers, output, workspace],
        calls,
        {launch.symbol: launch.scratch_bytes_per_worker for launch in program.launches},
        features=target.features,
    )
    return found[len(buffers)]


def _view(flat: Array, layout: Layout) -> Array:
    block, item = layout.format.channel_block, flat.dtype.itemsize
    if layout.format is TensorFormat.LINEAR:
        shape, steps = layout.shape, layout.strides
    else:
        n, _, h, w = layout.shape
        shape, steps = (n, layout.num_channel_blocks, h, w, block), (*layout.strides, 1)
    return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * item for s in steps))


def _write(flat: Array, layout: Layout, values: Array) -> None:
    view = _view(flat, layout)
    if layout.format is TensorFormat.LINEAR:
        view[...] = values
        return
    for c in range(layout.shape[1]):
        view[:, c // view.shape[4], :, :, c % view.shape[4]] = values[:, c]


def _read(flat: Array, layout: Layout) -> Array:
    view = _view(flat, layout)
    if layout.format is TensorFormat.LINEAR:
        return np.array(view)
    n, c, h, w = layout.shape
    return np.array(view.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)[:, :c])

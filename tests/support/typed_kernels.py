"""Running kernels of any element type: pack, fill gaps with poison, call units, unpack.

Like `support.cpu_kernels` but for every datatype, and through `CToolchain`.
"""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.toolchain_c import CompiledObject, CToolchain
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

Array = np.ndarray[Any, Any]

NUMPY_TYPES = {
    DataType.FLOAT32: np.float32,
    DataType.FLOAT16: np.float16,
    DataType.FLOAT64: np.float64,
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.INT16: np.int16,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.uint8,
}


@functools.cache
def _store() -> tuple[tempfile.TemporaryDirectory[str], ArtifactStore]:
    folder = tempfile.TemporaryDirectory(prefix="edgeplan-test-")
    return folder, ArtifactStore(folder.name)


def store_of_the_run() -> ArtifactStore:
    """The artifact store that the whole test run shares; removed at its end."""
    return _store()[1]


def toolchain(target: CpuTarget) -> CToolchain:
    """A toolchain on a store that the whole test run shares."""
    return CToolchain(target, store=_store()[1], jobs=2)


def layout(
    shape: Sequence[int],
    fmt: TensorFormat = TensorFormat.LINEAR,
    dtype: DataType = DataType.FLOAT32,
    gap: int = 0,
) -> Layout:
    """A layout; `gap` widens the stride of dimension 0 (a strided view)."""
    dense = dense_layout(TensorType(tuple(shape), dtype), fmt)
    if not gap:
        return dense
    return Layout(fmt, dense.shape, dtype, (dense.strides[0] + gap, *dense.strides[1:]))


def problem(
    kind: str,
    params: Any,
    inputs: Sequence[Layout],
    outputs: Sequence[Layout],
    *,
    constant: Sequence[int] = (),
    epilogue: Epilogue | None = None,
) -> Problem:
    """A problem; `constant` lists the inputs that are known at build time."""
    flags = tuple(number in constant for number in range(len(inputs)))
    return Problem(kind, params, tuple(inputs), flags, tuple(outputs), epilogue)


def _buffer(layout: Layout, fill: int) -> Array:
    """64-byte aligned memory full of one byte."""
    dtype = np.dtype(NUMPY_TYPES[layout.dtype])
    size = layout.stored_elems * dtype.itemsize
    raw = np.full(size + 64, fill, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype)


def _view(flat: Array, layout: Layout) -> Array:
    block = layout.format.channel_block
    item = flat.dtype.itemsize
    if block == 1:
        steps = tuple(s * item for s in layout.strides)
        return np.lib.stride_tricks.as_strided(flat, layout.shape, steps)
    n, _, h, w = layout.shape
    shape = (n, layout.num_channel_blocks, h, w, block)
    steps = (*(s * item for s in layout.strides), item)
    return np.lib.stride_tricks.as_strided(flat, shape, steps)


def _write(flat: Array, layout: Layout, values: Array) -> None:
    view = _view(flat, layout)
    if layout.format.channel_block == 1:
        view[...] = values
        return
    for c in range(layout.shape[1]):
        view[:, c // view.shape[4], :, :, c % view.shape[4]] = values[:, c]


def _read(flat: Array, layout: Layout) -> Array:
    view = _view(flat, layout)
    if layout.format.channel_block == 1:
        return np.array(view)
    n, c, h, w = layout.shape
    return np.array(view.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)[:, :c])


def run(family: Any, problem: Problem, target: CpuTarget, inputs: Sequence[Array]) -> list[Array]:
    """All outputs of the family's first tactic as logical arrays.

    Input gaps and padded lanes hold 0xff bytes (NaN, -1). Outputs are checked for writes outside
    the tensor, and every unit, run alone in reverse order, must give equal bits.
    """
    assert family.applies(problem, target)
    assert family.estimate_us(problem, target) > 0
    tactic = family.tactics(problem, target)[0]
    program = family.generate(problem, tactic, target)
    assert family.generate(problem, tactic, target) == program
    (compiled,) = toolchain(target).compile_objects([program.source])
    assert isinstance(compiled, CompiledObject), compiled.error + program.source
    library = ctypes.CDLL(str(compiled.path))
    constants = [
        np.asarray(v, NUMPY_TYPES[item.dtype]) if known else None
        for v, item, known in zip(inputs, problem.inputs, problem.is_constant, strict=True)
    ]
    packed = family.pack(problem, tactic, target, constants)
    buffers = []
    for values, item, ready in zip(inputs, problem.inputs, packed, strict=True):
        if ready is not None:
            buffers.append(ready)
            continue
        buffer = _buffer(item, 0xFF)
        _write(buffer, item, values)
        buffers.append(buffer)
    results = []
    for is_split in (False, True):
        outputs = [_buffer(item, 0xAB) for item in problem.outputs]
        pointers = [a.ctypes.data for a in (*buffers, *outputs)]
        workspace = np.zeros(program.workspace_bytes + 1, np.uint8)
        pointers.append(workspace.ctypes.data)
        arguments = (ctypes.c_void_p * len(pointers))(*pointers)
        for launch in program.launches:
            scratch = np.zeros(launch.scratch_bytes_per_worker + 1, np.uint8)
            function = getattr(library, launch.symbol)
            function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
            function.restype = None
            units = range(launch.num_units)
            spans = [(u, u + 1) for u in reversed(units)] if is_split else [(0, len(units))]
            for begin, end in spans:
                function(arguments, begin, end, scratch.ctypes.data)
        for output, item in zip(outputs, problem.outputs, strict=True):
            block = item.format.channel_block
            owned = np.zeros(item.stored_elems, np.uint8)
            mask = Layout(item.format, item.shape, DataType.BOOL, item.strides)
            _view(owned, mask)[...] = 1
            rest = output[~owned.astype(bool)].view(np.uint8)
            assert (rest == 0xAB).all(), f"a write outside the output (block {block})"
        results.append([_read(o, i) for o, i in zip(outputs, problem.outputs, strict=True)])
    for one, other in zip(*results, strict=True):
        assert one.tobytes() == other.tobytes(), "the result depends on the split of units"
    return results[0]

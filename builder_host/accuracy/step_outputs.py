"""What every operation of a CPU plan computes, read from the arena while the plan runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import BuilderError
from builder_host.layouts import Layout, dense_layout
from builder_host.measure.local import load_engine
from builder_host.network.network import NUMPY_OF_DTYPE
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat
from planformat.details import OperationDetails, plan_details
from planformat.limits import MAX_PROFILES
from planformat.plan import ArgumentKind, Plan

Array = npt.NDArray[Any]

_LAYOUT = re.compile(
    r"(?P<shape>[0-9x]*|scalar):(?P<dtype>[a-z0-9]+):(?P<format>[A-Z0-9]+)(@(?P<strides>[0-9,]+))?"
)
_DTYPES = {dtype.text: dtype for dtype in DataType}
_ALIGNMENT_BYTES = 64


@dataclass(frozen=True, slots=True)
class StepOutput:
    """One output of one operation.

    Attributes:
        operation: its name in the plan; kind: layer kind; tactic: what computed it.
        model_name: of the values in the model.
        dtype: in which the plan stores them, e.g. `u8`.
        values: as stored, of the logical shape; scale: real value of one step, 0: no 8-bit scale.
    """

    operation: str
    kind: str
    tactic: str
    model_name: str
    dtype: str
    values: Array
    scale: float


def step_outputs(plan: Plan, inputs: Mapping[str, Array]) -> Iterator[StepOutput]:
    """Run a plan's first profile and yield each operation's outputs, in order.

    Operations are run by prefixes of the plan: of the same code, weights and memory, so that what
    later steps overwrite in the arena is still there.

    Args:
        plan: for this machine's CPU, with details.
        inputs: one array per input.

    Raises:
        BuilderError: no details, or a plan for another device kind.
    """
    variant = plan.variants[0]
    details = plan_details(plan)
    if variant.fingerprint.device_kind != "cpu":
        raise BuilderError(
            f"the plan is for '{variant.fingerprint.device_kind}'; its layers can be read on a CPU "
            "only: build the model for host-cpu with the same precision and compare that"
        )
    if details is None:
        raise BuilderError("the plan has no details (stripped, or of format 1.0); build it again")
    profile = variant.profiles[0]
    operations = [o for o in details.variants[0][0].operations if o.steps]
    for start in range(0, len(operations), MAX_PROFILES):
        chunk = operations[start : start + MAX_PROFILES]
        prefixes = tuple(
            replace(profile, name=f"p{n}", steps=profile.steps[: o.steps[-1] + 1], canary=None)
            for n, o in enumerate(chunk)
        )
        partial = replace(plan, variants=(replace(variant, profiles=prefixes),), details=b"")
        with load_engine(partial) as engine:
            for number, operation in enumerate(chunk):
                yield from _run_prefix(engine, f"p{number}", operation, plan, inputs)


def _run_prefix(
    engine: Any, name: str, operation: OperationDetails, plan: Plan, inputs: Mapping[str, Array]
) -> Iterator[StepOutput]:
    arena = _aligned(engine.context_bytes(name))
    context = engine.create_context(profile=name, arena=arena)
    try:
        outputs = context.execute(dict(inputs))
    finally:
        context.close()
    step = plan.variants[0].profiles[0].steps[operation.steps[-1]]
    places = step.arguments[len(operation.inputs) :]
    for tensor, argument in zip(operation.outputs, places, strict=False):
        if not tensor.model_name:
            continue
        layout = parse_layout(tensor.layout)
        if argument.kind is ArgumentKind.BINDING:
            memory = outputs[plan.bindings[argument.value].name].reshape(-1).view(np.uint8)
            memory = memory[argument.offset_bytes :]
        else:
            memory = arena[argument.value :]
        yield StepOutput(
            operation.name,
            operation.kind,
            step.tactic,
            tensor.model_name,
            layout.dtype.text,
            _logical(memory, layout),
            tensor.scale,
        )


def parse_layout(text: str) -> Layout:
    """The layout that `Layout.text` wrote. Raises BuilderError."""
    match = _LAYOUT.fullmatch(text)
    if match is None or match["dtype"] not in _DTYPES:
        raise BuilderError(f"'{text}' is no tensor layout; the plan's details are damaged")
    dims = match["shape"]
    shape = tuple(int(d) for d in dims.split("x")) if dims and dims != "scalar" else ()
    try:
        fmt = TensorFormat[match["format"]]
        layout = dense_layout(TensorType(shape, _DTYPES[match["dtype"]]), fmt)
    except (KeyError, ValueError) as error:
        raise BuilderError(f"'{text}' is no tensor layout: {error}") from error
    if match["strides"] is None:
        return layout
    return replace(layout, strides=tuple(int(s) for s in match["strides"].split(",")))


def _logical(memory: Array, layout: Layout) -> Array:
    """A copy of the tensor in its logical shape."""
    dtype = np.dtype(NUMPY_OF_DTYPE[layout.dtype])
    if memory.size < layout.stored_bytes:
        raise BuilderError(
            f"a tensor of {layout.stored_bytes:,} B lies in {memory.size:,} B of memory; the "
            "plan's details are damaged"
        )
    flat = memory[: layout.stored_bytes].view(dtype)
    steps = tuple(s * dtype.itemsize for s in layout.strides)
    block = layout.format.channel_block
    if block == 1:
        return np.lib.stride_tricks.as_strided(flat, layout.shape, steps).copy()
    n, c, h, w = layout.shape
    blocked = np.lib.stride_tricks.as_strided(
        flat, (n, layout.num_channel_blocks, h, w, block), (*steps, dtype.itemsize)
    )
    return blocked.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)[:, :c].copy()


def _aligned(num_bytes: int) -> Array:
    raw = np.zeros(num_bytes + _ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT_BYTES
    return raw[start : start + num_bytes]

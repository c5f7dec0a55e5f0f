"""What every operation of a plan computes, read from the arena between runs of its prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import BuilderError, TargetError
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


class StepReader:
    """Reads what each operation of a plan's first profile computes, on the plan's own device.

    Operations are run by prefixes of the plan: of the same code, weights and memory, so that what
    later steps overwrite in the arena is still there.
    """

    def __init__(self, plan: Plan) -> None:
        """Load the plan on this machine.

        Args:
            plan: for this machine's CPU or a GPU of it, with details.

        Raises:
            BuilderError: no details, or no device here that the plan runs on.
        """
        details = plan_details(plan)
        if details is None:
            raise BuilderError(
                "the plan has no details (stripped, or of format 1.0); build it again"
            )
        variant = plan.variants[0]
        profile = variant.profiles[0]
        self.plan = plan
        self._steps = profile.steps
        self._operations = [o for o in details.variants[0][0].operations if o.steps]
        self._engines: list[Any] = []
        with ExitStack() as loaded:  # closes what is loaded when a later part cannot be
            for start in range(0, len(self._operations), MAX_PROFILES):
                prefixes = tuple(
                    replace(
                        profile,
                        name=f"p{start + n}",
                        steps=self._steps[: o.steps[-1] + 1],
                        canary=None,
                    )
                    for n, o in enumerate(self._operations[start : start + MAX_PROFILES])
                )
                partial = replace(
                    plan, variants=(replace(variant, profiles=prefixes),), details=b""
                )
                self._engines.append(loaded.enter_context(_loaded(partial)))
            self._loaded = loaded.pop_all()

    def __enter__(self) -> StepReader:
        """The reader itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Unload the plan."""
        self._loaded.close()

    def outputs(self, inputs: Mapping[str, Array]) -> Iterator[StepOutput]:
        """Run the plan on one batch and yield each operation's outputs, in order.

        Args:
            inputs: one array per input.
        """
        for engine in self._engines:
            names = engine.profiles
            nbytes = max(engine.context_bytes(name) for name in names)
            arena = engine.device.allocate(nbytes, _ALIGNMENT_BYTES) if nbytes else 0
            try:
                for name in names:
                    operation = self._operations[int(name[1:])]
                    yield from self._run_prefix(engine, name, operation, (arena, nbytes), inputs)
            finally:
                if nbytes:
                    engine.device.free(arena)

    def _run_prefix(
        self,
        engine: Any,
        name: str,
        operation: OperationDetails,
        arena: tuple[int, int],
        inputs: Mapping[str, Array],
    ) -> Iterator[StepOutput]:
        with engine.create_context(profile=name, arena=arena if arena[1] else None) as context:
            results = context.execute(dict(inputs))
        step = self._steps[operation.steps[-1]]
        places = step.arguments[len(operation.inputs) :]
        for tensor, argument in zip(operation.outputs, places, strict=False):
            if not tensor.model_name:
                continue
            layout = parse_layout(tensor.layout)
            if argument.kind is ArgumentKind.BINDING:
                memory = results[self.plan.bindings[argument.value].name].reshape(-1)
                memory = memory.view(np.uint8)[argument.offset_bytes :]
            else:
                nbytes = min(layout.stored_bytes, arena[1] - argument.value)
                start = arena[0] + argument.value
                memory = np.frombuffer(engine.device.read(start, max(0, nbytes)), np.uint8)
            yield StepOutput(
                operation.name,
                operation.kind,
                step.tactic,
                tensor.model_name,
                layout.dtype.text,
                _logical(memory, layout),
                tensor.scale,
            )


def _loaded(plan: Plan) -> Any:
    try:
        return load_engine(plan)
    except TargetError as error:
        is_gpu = plan.variants[0].fingerprint.device_kind == "cuda"
        raise BuilderError(
            f"layers are read where the plan runs: {error}; compare on a machine with its "
            f"{'GPU' if is_gpu else 'CPU'}, or build the model for host-cpu with the same "
            "precision and compare that"
        ) from error


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

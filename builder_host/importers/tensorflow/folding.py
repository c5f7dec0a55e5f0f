"""Values of a GraphDef that its constants alone decide: shapes, ranges, permutations, fills."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.importers.tensorflow.tensors import tensor_array
from builder_host.importers.uff.problem import NodeProblem

Array = npt.NDArray[Any]

COPIES = ("CheckNumerics", "Identity", "PlaceholderWithDefault", "PreventGradient", "StopGradient")
MAX_FOLDED_ELEMS = 1 << 22  # of one computed value: shapes, permutations, initial states
MAX_MADE_ELEMS = 1 << 26
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Mul": np.multiply,
    "Sub": np.subtract,
    "Less": np.less,
    "LogicalAnd": np.logical_and,
}


def input_names(message: Any) -> list[str]:
    """Input names of a node without control inputs; `name:0` is `name`."""
    return [name.removesuffix(":0") for name in message.input if not name.startswith("^")]


@dataclass(frozen=True, slots=True)
class KnownValues:
    """Values by node name, and why other Const nodes have none."""

    values: Mapping[str, Array]
    refused: Mapping[str, str]


def known_values(messages: Sequence[Any]) -> KnownValues:
    """What constants decide, in a bounded amount of memory; the nodes of loops are left out."""
    found: dict[str, Array] = {}
    refused: dict[str, str] = {}
    readers: dict[str, list[Any]] = {}
    for message in messages:
        for name in input_names(message):
            readers.setdefault(name, []).append(message)
    ready = [message for message in messages if message.op == "Const"]
    num_made = 0  # elements that are not stored in the file
    while ready:
        message = ready.pop()
        inputs = input_names(message)
        if message.name in found or any(name not in found for name in inputs):
            continue
        try:
            value = folded(message, [found[name] for name in inputs])
        except (NodeProblem, ValueError, IndexError, TypeError) as error:
            refused[message.name] = str(error)
            continue
        if value is None:
            continue
        if not message.attr["value"].tensor.tensor_content and message.op not in COPIES:
            num_made += value.size
        if num_made > MAX_MADE_ELEMS:
            text = f"constants make more than {MAX_MADE_ELEMS:,} elements; the file is damaged"
            return KnownValues(found, {**refused, message.name: text})
        found[message.name] = value
        ready += readers.get(message.name, ())
    return KnownValues(found, refused)


def folded(message: Any, inputs: Sequence[Array]) -> Array | None:
    """The value of one node for known inputs; None for operations that are not folded here.

    Raises:
        NodeProblem: a damaged constant, or a result beyond all reason.
    """
    op = str(message.op)
    if op == "Const":
        return tensor_array(message.attr["value"].tensor)
    if op in COPIES:
        return inputs[0] if inputs else None
    if op in _BINARY and len(inputs) == 2:
        _check_size(message, math.prod(max(pair) for pair in _aligned(*inputs)))
        return np.asarray(_BINARY[op](inputs[0], inputs[1]))
    if op == "Fill" and len(inputs) == 2:
        shape = tuple(int(d) for d in inputs[0])
        _check_size(message, math.prod(shape) if min(shape, default=1) >= 0 else -1)
        return np.full(shape, inputs[1].reshape(()), inputs[1].dtype)
    if op == "Range" and len(inputs) == 3:
        start, limit, step = (x.reshape(()).item() for x in inputs)
        if step == 0:
            raise NodeProblem("its step is 0")
        _check_size(message, max(0, math.ceil((limit - start) / step)))
        return np.asarray(np.arange(start, limit, step), inputs[0].dtype)
    if op in ("ConcatV2", "Pack"):
        _check_size(message, sum(x.size for x in inputs))
    if op == "Pack" and inputs:
        return np.stack(inputs, axis=int(message.attr["axis"].i))
    if op == "ConcatV2" and len(inputs) > 1:
        return np.concatenate(inputs[:-1], axis=int(inputs[-1]))
    if op == "StridedSlice" and len(inputs) == 4:
        return _strided_slice(message.attr, inputs)
    return None


def _aligned(a: Array, b: Array) -> list[tuple[int, int]]:
    """Extents of two shapes, the shorter one with leading ones."""
    rank = max(a.ndim, b.ndim)
    one, other = ((1,) * (rank - x.ndim) + x.shape for x in (a, b))
    return list(zip(one, other, strict=True))


def _check_size(message: Any, count: int) -> None:
    if not 0 <= count <= MAX_FOLDED_ELEMS:
        raise NodeProblem(
            f"{message.op} '{message.name}' would have {count} elements, the limit is "
            f"{MAX_FOLDED_ELEMS}"
        )


def _strided_slice(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array | None:
    data, *bounds = inputs
    masks = {
        name: int(attributes[name].i) if name in attributes else 0
        for name in ("begin_mask", "end_mask", "shrink_axis_mask", "ellipsis_mask", "new_axis_mask")
    }
    if masks["ellipsis_mask"] or masks["new_axis_mask"]:
        return None
    begin, end, step = (np.ravel(b).tolist() for b in bounds)
    index: list[slice | int] = []
    for axis, (low, high, stride) in enumerate(zip(begin, end, step, strict=True)):
        bit = 1 << axis
        if masks["shrink_axis_mask"] & bit:
            index.append(int(low))
        else:
            first = None if masks["begin_mask"] & bit else int(low)
            last = None if masks["end_mask"] & bit else int(high)
            index.append(slice(first, last, int(stride)))
    return np.asarray(data[tuple(index)])

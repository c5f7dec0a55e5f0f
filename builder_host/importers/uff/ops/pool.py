"""Pool: maximum, or average over the cells inside the tensor, as TensorFlow counts."""

from __future__ import annotations

from typing import Literal

from builder_host.importers.uff.node import NodeView, Value
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.windows import CHANNELS_FIRST, read_windows
from builder_host.network.layers.pooling import PoolingParams, pooled_extent

OPERATIONS = ("Pool",)
_MODES: dict[str, Literal["max", "average"]] = {"max": "max", "avg": "average"}


def convert(view: NodeView) -> Value:
    """One input; `func`, `kernel`, `strides`."""
    view.require_inputs(1)
    order = view.order(0, CHANNELS_FIRST)
    if len(order) < 3:
        raise NodeProblem(f"the data has {len(order)} dimensions, pooling needs at least 3")
    data = view.ordered(0, order)
    func = view.text("func")
    if func not in _MODES:
        raise NodeProblem(f"func is '{func}', must be one of {', '.join(_MODES)}")
    kernel = view.integers("kernel", len(order) - 2)
    windows = read_windows(view, data.shape[2:], kernel)
    extents = tuple(
        pooled_extent(extent, k, s, b, e, d, "floor")
        for extent, k, s, b, e, d in zip(
            data.shape[2:],
            kernel,
            windows.strides,
            windows.pads_begin,
            windows.pads_end,
            windows.dilations,
            strict=True,
        )
    )
    params = PoolingParams(
        _MODES[func],
        kernel,
        windows.strides,
        windows.pads_begin,
        windows.pads_end,
        extents,
        windows.dilations,
        False,
    )
    return Value(view.add("pooling", params, [data]), order)

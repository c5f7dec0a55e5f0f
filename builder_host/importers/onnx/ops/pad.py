"""Pad: amounts as attributes (up to 2) or as inputs (11 and later)."""

from __future__ import annotations

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.pad import PadParams
from builder_host.network.network import Tensor

_MODES = ("constant", "reflect", "edge")


@operator("Pad", since=(1, 2, 11, 13, 18, 19, 21, 23, 24, 25))
def pad(node: Node) -> Tensor:
    """Begins, then ends; negative amounts crop."""
    x = node.input(0)
    rank = x.type.rank
    modes = (*_MODES, "wrap") if node.version >= 19 else _MODES
    mode = node.choice("mode", "constant", modes)
    axes = None
    if node.version < 11:
        name = "paddings" if node.version == 1 else "pads"
        pads, value = node.attr_ints(name) or (), node.attr_float("value", 0.0)
    else:
        pads, value = node.constant_ints(1, "pads"), 0.0
        if node.optional(2) is not None:
            stated = node.constant(2, "constant_value")
            if stated.size != 1:
                node.fail(f"the fill value must be one number, got shape {stated.shape}")
            value = float(stated.item())
        axes = node.optional_ints(3, "axes")
    dims = range(rank) if axes is None else [node.axis(a, rank, "axes") for a in axes]
    if len(pads) != 2 * len(dims) or len(set(dims)) != len(dims):
        node.fail(f"{len(pads)} pads do not fit {len(dims)} dimensions {tuple(dims)}")
    begins, ends = [0] * rank, [0] * rank
    for place, dim in enumerate(dims):
        begins[dim], ends[dim] = pads[place], pads[place + len(dims)]
    if not any(begins) and not any(ends):
        return x
    params = PadParams(tuple(begins), tuple(ends), mode, value)  # type: ignore[arg-type]
    return node.add("pad", params, x)

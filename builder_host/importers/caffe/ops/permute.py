"""Permute of SSD: axes in `order`, those not named behind."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.transpose import TransposeParams

TYPES = ("Permute",)


def convert(layer: CaffeLayer) -> None:
    """A transpose, or nothing when the order is the natural one."""
    bottom = layer.bottom
    rank = len(bottom.shape)
    order = list(layer.message.permute_param.order)
    if len(set(order)) != len(order) or any(axis >= rank for axis in order):
        raise LayerProblem(f"order {order} must name different axes below {rank}")
    order += [axis for axis in range(rank) if axis not in order]
    if order == list(range(rank)):
        layer.alias(bottom)
    else:
        layer.emit("transpose", TransposeParams(tuple(order)), [bottom])

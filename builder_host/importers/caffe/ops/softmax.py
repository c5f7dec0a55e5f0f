"""Softmax; SoftmaxWithLoss is read as the softmax of its first bottom, without the loss."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.softmax import SoftmaxParams

TYPES = ("Softmax", "SoftmaxWithLoss")


def convert(layer: CaffeLayer) -> None:
    """Over one axis, 1 unless stated."""
    bottom = layer.bottoms[0] if layer.message.type == "SoftmaxWithLoss" else layer.bottom
    axis = layer.axis(layer.message.softmax_param.axis, bottom)
    layer.emit("softmax", SoftmaxParams(axis), [bottom])

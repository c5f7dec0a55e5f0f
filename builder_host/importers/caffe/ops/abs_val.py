"""AbsVal."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.network.layers.unary import UnaryParams

TYPES = ("AbsVal",)


def convert(layer: CaffeLayer) -> None:
    """|x|."""
    layer.emit("unary", UnaryParams("abs"), [layer.bottom])

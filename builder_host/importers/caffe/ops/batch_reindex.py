"""BatchReindex: items of the batch picked, repeated or left out by number."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.gather import GatherParams
from planformat.datatypes import DataType

TYPES = ("BatchReindex",)


def convert(layer: CaffeLayer) -> None:
    """x[N,...] and numbers[M] -> [M,...]; Caffe keeps the numbers as floats."""
    layer.require_bottoms(2)
    x, numbers = layer.bottoms
    if len(numbers.shape) != 1 or not x.shape:
        raise LayerProblem(
            f"the second bottom {shape_text(numbers)} must be a list of item numbers"
        )
    indices = layer.add("cast", CastParams(DataType.INT64), [numbers], "numbers")
    layer.emit("gather", GatherParams(0), [x, indices])

"""Tile: the bottom repeated along one axis."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem, check_constant_size
from builder_host.network.layers.concatenation import ConcatenationParams

TYPES = ("Tile",)


def convert(layer: CaffeLayer) -> None:
    """A concatenation of the bottom with itself."""
    param = layer.message.tile_param
    bottom = layer.bottom
    if param.tiles < 1:
        raise LayerProblem(f"tiles is {param.tiles}, must be at least 1")
    axis = layer.axis(param.axis, bottom)
    check_constant_size("the output", (*bottom.shape, param.tiles))
    if param.tiles == 1:
        layer.alias(bottom)
    else:
        layer.emit("concatenation", ConcatenationParams(axis), [bottom] * param.tiles)

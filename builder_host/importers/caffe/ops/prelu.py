"""PReLU: a learned slope per channel, or one for all."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.network.layers.parametric_relu import ParametricReluParams

TYPES = ("PReLU",)


def convert(layer: CaffeLayer) -> None:
    """X where x > 0, else slope * x."""
    bottom = layer.bottom
    if len(bottom.shape) < 2:
        raise LayerProblem(f"the bottom {shape_text(bottom)} has no channel dimension")
    shared = layer.message.prelu_param.channel_shared
    shape = () if shared else (bottom.shape[1],)
    (slope,) = layer.weights([BlobSpec("slope", shape, "slope")])
    tail = (1,) * (len(bottom.shape) - 2)
    tensor = layer.constant(slope.reshape((1, slope.size, *tail)), "slope")
    layer.emit("parametric_relu", ParametricReluParams(), [bottom, tensor])

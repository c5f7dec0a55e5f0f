"""Parameter: a learned blob as it is."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec

TYPES = ("Parameter",)


def convert(layer: CaffeLayer) -> None:
    """A constant."""
    layer.require_bottoms(0)
    shape = tuple(layer.message.parameter_param.shape.dim)
    if not shape or min(shape) < 1:
        raise LayerProblem(f"shape {shape} must have dimensions of at least 1")
    (values,) = layer.weights([BlobSpec("values", shape, "bias")])
    layer.alias(layer.constant(values, "values"))

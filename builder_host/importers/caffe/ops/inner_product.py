"""InnerProduct: the dimensions from `axis` on are flattened; the output has one in their place."""

from __future__ import annotations

import math

import numpy as np

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.network.layers.fully_connected import FullyConnectedParams

TYPES = ("InnerProduct",)


def convert(layer: CaffeLayer) -> None:
    """[N,...] -> [N,K]; with another axis the leading dimensions are kept."""
    param = layer.message.inner_product_param
    bottom = layer.bottom
    axis = layer.axis(param.axis, bottom)
    maps = param.num_output
    if maps < 1:
        raise LayerProblem(f"num_output is {maps}, must be at least 1")
    lead, volume = bottom.shape[:axis], math.prod(bottom.shape[axis:])
    shape = (volume, maps) if param.transpose else (maps, volume)
    specs = [BlobSpec("weights", shape, "weights", volume)]
    if param.bias_term:
        specs.append(BlobSpec("bias", (maps,), "bias"))
    weights, *bias = layer.weights(specs)
    operands = [
        layer.constant(np.ascontiguousarray(weights.T) if param.transpose else weights, "weights")
    ]
    operands += [layer.constant(b, "bias") for b in bias]
    if axis == 1:
        layer.emit("fully_connected", FullyConnectedParams(), [bottom, *operands])
        return
    rows = layer.reshaped(bottom, (math.prod(lead), volume), "rows")
    made = layer.add("fully_connected", FullyConnectedParams(), [rows, *operands], "product")
    layer.emit_reshape(made, (*lead, maps))

"""ArgMax: indices (as numbers of the blob's type), values, or both of the k largest elements."""

from __future__ import annotations

import math

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.layers.top_k import TopKParams

TYPES = ("ArgMax",)


def convert(layer: CaffeLayer) -> None:
    """Along `axis`: [.., k, ..]; without one over each image: [N, 1 or 2, k, 1 ...]."""
    param = layer.message.argmax_param
    bottom = layer.bottom
    has_axis = param.HasField("axis")
    if has_axis:
        source, axis = bottom, layer.axis(param.axis, bottom)
    else:
        batch = bottom.shape[0]
        axis = 1
        source = layer.reshaped(bottom, (batch, math.prod(bottom.shape[1:])), "flat")
    if not 1 <= param.top_k <= source.shape[axis]:
        raise LayerProblem(f"top_k is {param.top_k}, must be 1 .. {source.shape[axis]}")
    made = layer.network.add_layer(
        "top_k",
        TopKParams(param.top_k, axis),
        [source],
        f"{layer.name}/top_k",
        output_names=(f"{layer.name}/values", f"{layer.name}/indices"),
        origin=layer.origin,
    )
    values, indices = made.outputs
    if has_axis and param.out_max_val:
        layer.emit("reshape", ReshapeParams(values.shape), [values])
        return
    if has_axis:
        layer.emit("cast", CastParams(bottom.dtype), [indices])
        return
    numbers = layer.add("cast", CastParams(bottom.dtype), [indices], "numbers")
    tail = (1,) * max(0, len(bottom.shape) - 3)
    parts = [layer.reshaped(numbers, (batch, 1, param.top_k, *tail), "index_rows")]
    if not param.out_max_val:
        layer.alias(parts[0])
        return
    parts.append(layer.reshaped(values, (batch, 1, param.top_k, *tail), "value_rows"))
    layer.emit("concatenation", ConcatenationParams(1), parts)

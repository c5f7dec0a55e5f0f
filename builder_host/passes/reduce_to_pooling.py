"""reduce(mean or max over H, W) -> pooling with one window."""

from __future__ import annotations

from builder_host.network.editing import insert_before, update_layer
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.network import Network


def run(network: Network) -> int:
    """Use the pooling kernels, which read blocked layouts; returns the number of layers."""
    changed = 0
    for layer in list(network.layers):
        if layer.kind != "reduce" or layer.params.op not in ("mean", "max"):
            continue
        (x,) = layer.inputs
        if x.type.rank != 4 or sorted(layer.params.axes) != [2, 3] or not x.dtype.is_float:
            continue
        if 0 in x.shape:
            continue
        params = PoolingParams(
            mode="max" if layer.params.op == "max" else "average",
            window=x.shape[2:],
            strides=(1, 1),
            pads_begin=(0, 0),
            pads_end=(0, 0),
            output_spatial=(1, 1),
            dilations=(1, 1),
            count_include_pad=False,
        )
        if layer.params.keep_dims:
            update_layer(network, layer, kind="pooling", params=params)
        else:
            pooled = insert_before(network, layer, "pooling", params, [x], f"{layer.name}.pooled")
            update_layer(
                network, layer, kind="reshape", params=ReshapeParams(layer.output.shape),
                inputs=[pooled.output],
            )  # fmt: skip
        changed += 1
    return changed

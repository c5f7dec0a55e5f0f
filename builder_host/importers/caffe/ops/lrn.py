"""LRN across channels or within a channel."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.lrn import LrnParams

TYPES = ("LRN",)


def convert(layer: CaffeLayer) -> None:
    """Within a channel Caffe adds 1, whatever k says."""
    param = layer.message.lrn_param
    if param.local_size % 2 != 1:
        raise LayerProblem(f"local_size is {param.local_size}, must be odd")
    across = param.NormRegion.Name(param.norm_region) == "ACROSS_CHANNELS"
    params = LrnParams(
        size=param.local_size,
        alpha=param.alpha,
        beta=param.beta,
        k=param.k if across else 1.0,
        region="across" if across else "within",
    )
    layer.emit("lrn", params, [layer.bottom])

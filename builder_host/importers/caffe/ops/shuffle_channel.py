"""ShuffleChannel: channels of the groups dealt out in turn."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.transpose import TransposeParams

TYPES = ("ShuffleChannel",)


def convert(layer: CaffeLayer) -> None:
    """[N,C,...] as [N,g,C/g,...], transposed, and back."""
    bottom = layer.bottom
    groups = layer.message.shuffle_channel_param.group
    if len(bottom.shape) < 2 or groups < 1 or bottom.shape[1] % groups:
        raise LayerProblem(
            f"the channels of {shape_text(bottom)} do not divide into {groups} groups"
        )
    batch, channels, *rest = bottom.shape
    split = layer.reshaped(bottom, (batch, groups, channels // groups, *rest), "split")
    order = (0, 2, 1, *range(3, len(split.shape)))
    dealt = layer.add("transpose", TransposeParams(order), [split], "dealt")
    layer.emit_reshape(dealt, bottom.shape)

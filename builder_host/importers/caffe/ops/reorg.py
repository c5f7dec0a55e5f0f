"""Reorg of YOLOv2: space to depth in Darknet's own order."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.transpose import TransposeParams

TYPES = ("Reorg",)


def convert(layer: CaffeLayer) -> None:
    """[N,C,H,W] -> [N,C*s*s,H/s,W/s].

    Darknet reads the bottom as if it had C/(s*s) channels of s*H x s*W, and writes one of the s*s
    sub-grids of every such channel after the other.
    """
    param = layer.message.reorg_param
    bottom = layer.bottom
    s = param.stride
    if param.reverse:
        raise LayerProblem("reverse: true cannot be imported; write a plugin (docs/plugins.md)")
    if len(bottom.shape) != 4 or s < 1 or any(d % s for d in bottom.shape[2:]):
        raise LayerProblem(
            f"stride {s} does not divide height and width of the bottom {shape_text(bottom)}"
        )
    n, c, h, w = bottom.shape
    if c % (s * s):
        raise LayerProblem(
            f"the {c} channels of the bottom are no multiple of {s * s}, stride {s} squared"
        )
    grids = layer.reshaped(bottom, (n, c // (s * s), h, s, w, s), "grids")
    dealt = layer.add("transpose", TransposeParams((0, 3, 5, 1, 2, 4)), [grids], "dealt")
    layer.emit_reshape(dealt, (n, c * s * s, h // s, w // s))

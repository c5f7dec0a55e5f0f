"""Region of YOLOv2: logistic on x, y and objectness of each anchor, softmax over its classes."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.slice import SliceParams
from builder_host.network.layers.softmax import SoftmaxParams
from builder_host.network.network import Tensor

TYPES = ("Region",)


def convert(layer: CaffeLayer) -> None:
    """[N, num * (coords + 1 + classes), H, W], same shape; width and height stay as they are.

    Decoding to boxes with the anchors and their suppression are left to the caller, as in Darknet.
    """
    param = layer.message.region_param
    bottom = layer.bottom
    coords, classes, anchors = param.coords, param.classes, param.num
    maps = coords + 1 + classes
    if len(bottom.shape) != 4 or anchors < 1 or bottom.shape[1] != anchors * maps:
        raise LayerProblem(
            f"num {anchors} anchors of {coords} + 1 + {classes} maps need {anchors * maps} "
            f"channels, the bottom is {shape_text(bottom)}"
        )
    if coords < 2 or classes < 1:
        raise LayerProblem(f"coords is {coords} and classes {classes}; at least 2 and 1 are needed")
    n, _, h, w = bottom.shape
    x = layer.reshaped(bottom, (n, anchors, maps, h, w), "anchors")

    def part(first: int, count: int, name: str) -> Tensor:
        params = SliceParams((0, 0, first, 0, 0), (n, anchors, count, h, w), (1,) * 5)
        return layer.add("slice", params, [x], name)

    logistic = ActivationParams("sigmoid")
    parts = [layer.add("activation", logistic, [part(0, 2, "xy")], "xy_logistic")]
    if coords > 2:
        parts.append(part(2, coords - 2, "size"))
    parts.append(layer.add("activation", logistic, [part(coords, 1, "object")], "objectness"))
    scores = part(coords + 1, classes, "scores")
    if param.softmax:
        parts.append(layer.add("softmax", SoftmaxParams(2), [scores], "shares"))
    else:
        parts.append(layer.add("activation", logistic, [scores], "score_logistic"))
    joined = layer.add("concatenation", ConcatenationParams(2), parts, "joined")
    layer.emit_reshape(joined, bottom.shape)

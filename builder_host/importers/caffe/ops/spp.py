"""SPP: spatial pyramid pooling: 1, 4, 16 ... bins of the bottom, flattened and joined."""

from __future__ import annotations

from typing import Literal

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.network import Tensor

TYPES = ("SPP",)


def convert(layer: CaffeLayer) -> None:
    """[N,C,H,W] -> [N,C*bins]; a pyramid of height 1 keeps [N,C,1,1], as in BVLC."""
    param = layer.message.spp_param
    bottom = layer.bottom
    if len(bottom.shape) != 4:
        raise LayerProblem(f"the bottom {shape_text(bottom)} must be NxCxHxW")
    method = param.PoolMethod.Name(param.pool)
    if method not in ("MAX", "AVE"):
        raise LayerProblem(f"pool {method} cannot be imported; MAX and AVE can")
    levels = param.pyramid_height
    if levels < 1 or 1 << (levels - 1) > min(bottom.shape[2:]):
        raise LayerProblem(
            f"pyramid_height {levels} makes {1 << max(levels - 1, 0)} bins along a side, the "
            f"bottom is {shape_text(bottom)}"
        )
    if levels == 1:
        layer.emit("pooling", _level(bottom, 0, method), [bottom])
        return
    parts: list[Tensor] = []
    for level in range(levels):
        pooled = layer.add("pooling", _level(bottom, level, method), [bottom], f"pool{level}")
        flat = (bottom.shape[0], pooled.type.num_elems // bottom.shape[0])
        parts.append(layer.reshaped(pooled, flat, f"flat{level}"))
    layer.emit("concatenation", ConcatenationParams(1), parts)


def _level(bottom: Tensor, level: int, method: str) -> PoolingParams:
    """Windows of one level: as large as their stride; what is left over is padding."""
    bins = 1 << level
    windows = tuple(-(-extent // bins) for extent in bottom.shape[2:])
    pads = tuple(
        (w * bins - extent + 1) // 2 for w, extent in zip(windows, bottom.shape[2:], strict=True)
    )
    outputs = []
    for extent, window, pad in zip(bottom.shape[2:], windows, pads, strict=True):
        if pad >= window:
            raise LayerProblem(
                f"{bins} bins of {window} need {pad} of padding, as much as a window; "
                "use a lower pyramid_height"
            )
        count = -(-(extent + 2 * pad - window) // window) + 1
        if pad and (count - 1) * window >= extent + pad:
            count -= 1
        outputs.append(count)
    mode: Literal["max", "average"] = "max" if method == "MAX" else "average"
    return PoolingParams(mode, windows, windows, pads, pads, tuple(outputs), (1, 1), True)

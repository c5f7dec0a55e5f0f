"""Im2col: every cell of the window as a channel of its own."""

from __future__ import annotations

import itertools

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.windows import convolution_windows
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.pad import PadParams
from builder_host.network.layers.slice import SliceParams
from builder_host.network.network import Tensor

TYPES = ("Im2col",)
_MAX_CELLS = 1024


def convert(layer: CaffeLayer) -> None:
    """[N,C,*S] -> [N,C*cells,*outputs]; channel c * cells + cell."""
    bottom = layer.bottom
    windows = convolution_windows(layer, layer.message.convolution_param, bottom)
    n, c, *spatial = bottom.shape
    cells = list(itertools.product(*(range(k) for k in windows.kernel)))
    if len(cells) > _MAX_CELLS:
        raise LayerProblem(f"the window has {len(cells)} cells, at most {_MAX_CELLS} are taken")
    outputs = tuple(
        (e + 2 * p - (k - 1) * d - 1) // s + 1
        for e, p, k, d, s in zip(
            spatial, windows.pads, windows.kernel, windows.dilations, windows.strides, strict=True
        )
    )
    if min(outputs) < 1:
        raise LayerProblem(f"the window does not fit into the bottom {shape_text(bottom)}")
    x = bottom
    if any(windows.pads):
        pads = (0, 0, *windows.pads)
        x = layer.add("pad", PadParams(pads, pads), [bottom], "padded")
    parts: list[Tensor] = []
    for number, cell in enumerate(cells):
        starts = (0, 0, *(i * d for i, d in zip(cell, windows.dilations, strict=True)))
        params = SliceParams(starts, (n, c, *outputs), (1, 1, *windows.strides))
        piece = layer.add("slice", params, [x], f"cell{number}")
        parts.append(layer.reshaped(piece, (n, c, 1, *outputs), f"column{number}"))
    stacked = layer.add("concatenation", ConcatenationParams(2), parts, "columns")
    layer.emit_reshape(stacked, (n, c * len(cells), *outputs))

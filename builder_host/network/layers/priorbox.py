"""Prior boxes of SSD: default boxes per feature map cell; depends on shapes only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PriorBoxParams:
    """Fields of SSD's PriorBoxParameter; sizes and steps in pixels, 0 = from the shapes.

    Attributes:
        min_sizes, max_sizes: box sides; max_sizes is empty or as long as min_sizes.
        aspect_ratios: besides 1; repeated ones are left out. flip adds 1 / ratio.
        clip: clip coordinates to 0..1.
        variances: 1 or 4 values.
        offset: of the box centre within its cell, in cells.
    """

    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...] = ()
    aspect_ratios: tuple[float, ...] = ()
    flip: bool = True
    clip: bool = False
    variances: tuple[float, ...] = (0.1,)
    image_height: int = 0
    image_width: int = 0
    step_height: float = 0.0
    step_width: float = 0.0
    offset: float = 0.5


def all_ratios(params: PriorBoxParams) -> tuple[float, ...]:
    """1, then each new ratio and, with flip, its inverse."""
    ratios = [1.0]
    for ratio in params.aspect_ratios:
        if any(abs(ratio - known) < 1e-6 for known in ratios):
            continue
        ratios += [ratio, 1.0 / ratio] if params.flip else [ratio]
    return tuple(ratios)


def cell_sides(params: PriorBoxParams) -> list[tuple[float, float]]:
    """(width, height) in pixels of the boxes of one cell, in their order."""
    sides = []
    for number, low in enumerate(params.min_sizes):
        sides.append((low, low))
        if params.max_sizes:
            middle = math.sqrt(low * params.max_sizes[number])
            sides.append((middle, middle))
        for ratio in all_ratios(params):
            if abs(ratio - 1.0) >= 1e-6:
                sides.append((low * math.sqrt(ratio), low / math.sqrt(ratio)))
    return sides


class PriorBox:
    """feature map [N,C,H,W], image [N,C,H',W'] -> [1,2,H*W*boxes*4]: boxes, then variances."""

    kind = "priorbox"
    params_type = PriorBoxParams

    def infer(self, params: PriorBoxParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check ranks and parameter counts."""
        require_num_inputs(inputs, 2)
        require(
            inputs[0].rank == 4 and inputs[1].rank == 4,
            f"feature map and image must be [N,C,H,W], got {inputs[0]} and {inputs[1]}",
        )
        require(len(params.min_sizes) >= 1, "min_sizes is empty")
        require(
            len(params.max_sizes) in (0, len(params.min_sizes)),
            f"{len(params.max_sizes)} max_sizes for {len(params.min_sizes)} min_sizes",
        )
        require(
            len(params.variances) in (1, 4),
            f"{len(params.variances)} variances, must be 1 or 4",
        )
        h, w = inputs[0].shape[2:]
        return [TensorType((1, 2, h * w * len(cell_sides(params)) * 4), DataType.FLOAT32)]

    def reference(self, params: PriorBoxParams, inputs: Sequence[Array]) -> list[Array]:
        """Corner boxes (x1,y1,x2,y2) as fractions of the image."""
        return [prior_boxes(params, np.shape(inputs[0])[2:], np.shape(inputs[1])[2:])]


def prior_boxes(params: PriorBoxParams, cells: tuple[int, ...], image: tuple[int, ...]) -> Array:
    """Float64 [1,2,H*W*boxes*4] for a map of (H, W) cells over an image of (H, W) pixels."""
    rows, columns = cells
    height = params.image_height or image[0]
    width = params.image_width or image[1]
    step_y = params.step_height or height / rows
    step_x = params.step_width or width / columns
    sides = np.asarray(cell_sides(params))
    y = ((np.arange(rows) + params.offset) * step_y)[:, None, None]
    x = ((np.arange(columns) + params.offset) * step_x)[None, :, None]
    half_w, half_h = sides[:, 0] / 2, sides[:, 1] / 2
    corners = np.broadcast_arrays(
        (x - half_w) / width, (y - half_h) / height, (x + half_w) / width, (y + half_h) / height
    )
    boxes = np.stack(corners, axis=-1)
    if params.clip:
        boxes = np.clip(boxes, 0.0, 1.0)
    variances = np.broadcast_to(np.asarray(params.variances), boxes.shape)
    return np.stack([boxes.reshape(-1), variances.reshape(-1)])[None]


DEFINITION: LayerDefinition = PriorBox()

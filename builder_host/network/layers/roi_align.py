"""ROI align: regions of feature maps, interpolated to a fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_index, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class RoiAlignParams:
    """Names as in ONNX.

    Attributes:
        mode: mean of a cell's samples, or the largest of their weighted corners.
        output_size: rows and columns of cells.
        sampling_ratio: samples per cell and dimension; 0: as many as a cell is elements long, but
            no more than a region of the whole feature map would need.
        spatial_scale: from region coordinates to feature map elements.
        half_pixel: regions are shifted by half an element and may be shorter than one.
    """

    mode: Literal["average", "max"]
    output_size: tuple[int, int]
    sampling_ratio: int
    spatial_scale: float
    half_pixel: bool

    def max_samples(self, axis: int, extent: int) -> int:
        """Samples per cell at most, along rows (0) or columns (1) of a map of this extent."""
        return self.sampling_ratio or max(1, -(-extent // self.output_size[axis]))


class RoiAlign:
    """x[N,C,H,W], regions[R,4] (x1,y1,x2,y2), batch[R] (integers) -> y[R,C,*output_size].

    A batch number out of range gives zeros.
    """

    kind = "roi_align"
    params_type = RoiAlignParams

    def infer(self, params: RoiAlignParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check shapes and counts."""
        require_num_inputs(inputs, 3)
        x, regions, batch = inputs
        require_index(batch)
        require(
            x.rank == 4
            and regions.rank == 2
            and regions.shape[1] == 4
            and batch.shape == regions.shape[:1],
            f"regions {regions} with batch numbers {batch} do not fit {x}",
        )
        require(
            min(params.output_size) >= 1 and params.sampling_ratio >= 0,
            f"output size {params.output_size} must be positive and sampling ratio "
            f"{params.sampling_ratio} not negative",
        )
        require(params.mode in ("average", "max"), f"mode '{params.mode}' is unknown")
        return [TensorType((regions.shape[0], x.shape[1], *params.output_size), x.dtype)]

    def reference(self, params: RoiAlignParams, inputs: Sequence[Array]) -> list[Array]:
        """Region after region, cell after cell."""
        x, regions, batch = (np.asarray(v) for v in inputs)
        y = np.zeros((regions.shape[0], x.shape[1], *params.output_size))
        shift = 0.5 if params.half_pixel else 0.0
        for number, region in enumerate(regions):
            if not 0 <= batch[number] < x.shape[0]:
                continue
            image = x[int(batch[number])]
            left, top, right, bottom = region * params.spatial_scale - shift
            sizes = [bottom - top, right - left]
            if not params.half_pixel:
                sizes = [max(s, 1.0) for s in sizes]
            cells = [s / n for s, n in zip(sizes, params.output_size, strict=True)]
            counts = [
                params.sampling_ratio
                or min(max(int(np.ceil(c)), 0), params.max_samples(axis, x.shape[2 + axis]))
                for axis, c in enumerate(cells)
            ]
            for place in np.ndindex(*params.output_size):
                y[(number, slice(None), *place)] = _cell(
                    params, image, (top, left), cells, counts, place
                )
        return [y]


def _cell(
    params: RoiAlignParams,
    image: Array,
    start: Sequence[float],
    cells: Sequence[float],
    counts: Sequence[int],
    place: tuple[int, ...],
) -> Array:
    total: Array = np.full(image.shape[0], 0.0 if params.mode == "average" else -np.inf)
    for sample in np.ndindex(*counts):
        where = [
            start[d] + place[d] * cells[d] + (sample[d] + 0.5) * cells[d] / counts[d]
            for d in (0, 1)
        ]
        corners = _corners(image, where)
        if params.mode == "average":
            total = total + sum(corners)
        else:
            for corner in corners:
                total = np.maximum(total, corner)
    if params.mode == "average":
        return np.asarray(total / max(counts[0] * counts[1], 1))
    return total if counts[0] * counts[1] else np.zeros_like(total)


def _corners(image: Array, where: Sequence[float]) -> list[Array]:
    """The four weighted neighbours of a position; zeros far outside."""
    extents = image.shape[1:]
    if any(not -1.0 <= w <= e for w, e in zip(where, extents, strict=True)):
        return [np.zeros(image.shape[0])]
    ends = []
    for position, extent in zip(where, extents, strict=True):
        position = max(position, 0.0)
        low = int(position)
        if low >= extent - 1:
            ends.append(((extent - 1, 1.0), (extent - 1, 0.0)))
        else:
            ends.append(((low, 1.0 - (position - low)), (low + 1, position - low)))
    return [a[1] * b[1] * image[:, a[0], b[0]] for a in ends[0] for b in ends[1]]


DEFINITION: LayerDefinition = RoiAlign()

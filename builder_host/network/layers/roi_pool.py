"""ROI pooling: the maximum of each cell of regions of feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class RoiPoolParams:
    """Rows and columns of cells; scale from region coordinates to feature map elements."""

    output_size: tuple[int, int]
    spatial_scale: float


class RoiPool:
    """x[N,C,H,W], regions[R,5] (batch,x1,y1,x2,y2) -> y[R,C,*output_size].

    Corners are rounded half up and belong to the region; a region is at least one element long.
    Cells may share elements. A cell without elements, or of an image out of range, gives 0.
    """

    kind = "roi_pool"
    params_type = RoiPoolParams

    def infer(self, params: RoiPoolParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check shapes and the output size."""
        require_num_inputs(inputs, 2)
        x, regions = inputs
        require(
            x.rank == 4 and regions.rank == 2 and regions.shape[1] == 5 and x.dtype.is_float,
            f"regions {regions} do not fit {x}",
        )
        require(min(params.output_size) >= 1, f"output size {params.output_size} must be positive")
        return [TensorType((regions.shape[0], x.shape[1], *params.output_size), x.dtype)]

    def reference(self, params: RoiPoolParams, inputs: Sequence[Array]) -> list[Array]:
        """Region after region, cell after cell."""
        x, regions = (np.asarray(v, dtype=np.float64) for v in inputs)
        y = np.zeros((regions.shape[0], x.shape[1], *params.output_size))
        for number, (batch, *corners) in enumerate(regions):
            if not 0 <= int(batch) < x.shape[0]:
                continue
            left, top, right, bottom = (
                int(np.floor(c * params.spatial_scale + 0.5)) for c in corners
            )
            spans = [
                _spans(first, last, count, extent)
                for first, last, count, extent in (
                    (top, bottom, params.output_size[0], x.shape[2]),
                    (left, right, params.output_size[1], x.shape[3]),
                )
            ]
            for row, column in np.ndindex(*params.output_size):
                rows, columns = slice(*spans[0][row]), slice(*spans[1][column])
                cell = x[int(batch), :, rows, columns]
                if cell.size:
                    y[number, :, row, column] = cell.max(axis=(1, 2))
        return [y]


def _spans(first: int, last: int, count: int, extent: int) -> list[tuple[int, int]]:
    """First element of each cell and the one behind its last, inside the map."""
    length = max(last - first + 1, 1)
    ends = [
        (first + i * length // count, first - (-(i + 1) * length // count)) for i in range(count)
    ]
    return [(min(max(a, 0), extent), min(max(b, 0), extent)) for a, b in ends]


DEFINITION: LayerDefinition = RoiPool()

"""Grid sample: the input interpolated at coordinates that another tensor gives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]

CUBIC_COEFFICIENT = -0.75
MAX_CUBIC_SPATIAL = 2  # 4 taps per dimension: 64 loads per element would make no kernel


@dataclass(frozen=True, slots=True)
class GridSampleParams:
    """How coordinates from -1 to 1 become positions, and what lies outside.

    Attributes:
        mode: nearest (ties to even), linear or cubic (coefficient -0.75; at most 2 dimensions).
        padding: zeros, the nearest border element, or a reflection at the border.
        align_corners: -1 and 1 are the centres of the outermost elements, else their outer edges.
    """

    mode: Literal["nearest", "linear", "cubic"]
    padding: Literal["zeros", "border", "reflection"]
    align_corners: bool


class GridSample:
    """x[N,C,*S], grid[N,*O,len(S)] -> y[N,C,*O]; the last spatial dimension comes first in grid."""

    kind = "grid_sample"
    params_type = GridSampleParams

    def infer(self, params: GridSampleParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check ranks, batches and names."""
        require_num_inputs(inputs, 2)
        x, grid = inputs
        spatial = x.rank - 2
        require(
            1 <= spatial <= 3 and grid.rank == x.rank and grid.shape[-1] == spatial,
            f"grid {grid} does not fit {x}: it needs one coordinate for each of 1 to 3 spatial "
            "dimensions",
        )
        require(grid.shape[0] == x.shape[0], f"grid {grid} and {x} differ in their batch")
        require(x.dtype.is_float and grid.dtype.is_float, f"{x} and {grid} must be floats")
        require(0 not in x.shape[2:], f"{x} has no element to sample")
        require(params.mode in ("nearest", "linear", "cubic"), f"mode '{params.mode}' is unknown")
        require(
            params.mode != "cubic" or spatial <= MAX_CUBIC_SPATIAL,
            f"cubic sampling is for up to {MAX_CUBIC_SPATIAL} spatial dimensions, got {x}",
        )
        require(
            params.padding in ("zeros", "border", "reflection"),
            f"padding '{params.padding}' is unknown",
        )
        return [TensorType((*x.shape[:2], *grid.shape[1:-1]), x.dtype)]

    def reference(self, params: GridSampleParams, inputs: Sequence[Array]) -> list[Array]:
        """Sum over taps, all elements at once."""
        x, grid = (np.asarray(v, dtype=np.float64) for v in inputs)
        spatial = x.shape[2:]
        per_axis = [
            _axis_taps(params, grid[..., len(spatial) - 1 - d], extent)
            for d, extent in enumerate(spatial)
        ]
        batch = np.arange(x.shape[0]).reshape(-1, *(1,) * len(spatial))
        total = np.zeros((*grid.shape[:-1], x.shape[1]))
        for taps in itertools.product(*per_axis):
            weight: Array = np.ones(grid.shape[:-1])
            places = []
            for (place, factor), extent in zip(taps, spatial, strict=True):
                legal = (place >= 0) & (place < extent)
                weight = weight * np.where(legal, factor, 0.0)
                places.append(np.where(legal, place, 0))
            picked = np.moveaxis(x, 1, -1)[(batch, *places)]
            # A weight of zero leaves out even infinities, as a border that is never read does.
            total += np.where(weight[..., None] == 0, 0.0, weight[..., None] * picked)
        return [np.ascontiguousarray(np.moveaxis(total, -1, 1))]


def _axis_taps(params: GridSampleParams, grid: Array, extent: int) -> list[tuple[Array, Array]]:
    """Positions (int64) and weights of the taps along one axis."""
    scaled = (grid + 1) * (extent - 1) if params.align_corners else (grid + 1) * extent - 1
    where = scaled / 2
    if params.mode != "cubic" and params.padding != "zeros":
        where = _padded(params, where, extent)
    if params.mode == "nearest":
        return [(np.rint(where).astype(np.int64), np.ones(where.shape))]
    base = np.floor(where)
    t = where - base
    if params.mode == "linear":
        return [(base.astype(np.int64), 1 - t), (base.astype(np.int64) + 1, t)]
    taps = []
    for offset in (-1, 0, 1, 2):
        place = base + offset
        if params.padding != "zeros":
            place = _padded(params, place, extent)
        taps.append((place.astype(np.int64), _cubic(np.abs(t - offset))))
    return taps


def _padded(params: GridSampleParams, where: Array, extent: int) -> Array:
    """Positions brought into the tensor by the padding rule."""
    if params.padding == "reflection":
        low, span = (0.0, extent - 1.0) if params.align_corners else (-0.5, float(extent))
        if span == 0:
            return np.zeros(where.shape)
        folded = np.mod(where - low, 2 * span)
        where = np.minimum(folded, 2 * span - folded) + low
    return np.clip(where, 0, extent - 1)


def _cubic(distance: Array) -> Array:
    a = CUBIC_COEFFICIENT
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.asarray(np.where(distance <= 1, near, far))


DEFINITION: LayerDefinition = GridSample()

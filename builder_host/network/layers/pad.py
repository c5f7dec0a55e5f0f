"""Pad: extend or crop each dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs, require_per_dim
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]

PAD_MODES = ("constant", "reflect", "edge", "wrap")


@dataclass(frozen=True, slots=True)
class PadParams:
    """One value per dimension; negative pads crop, before anything is reflected or repeated."""

    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant"
    value: float = 0.0


class Pad:
    """x -> y of extents pads_begin + extent + pads_end; reflect leaves out the edge itself."""

    kind = "pad"
    params_type = PadParams

    def infer(self, params: PadParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check that something is left, and that the mode can fill the pads."""
        require_num_inputs(inputs, 1)
        (x,) = inputs
        require(params.mode in PAD_MODES, f"mode '{params.mode}' is not one of {PAD_MODES}")
        require_per_dim(params.pads_begin, x.rank, "pads_begin")
        require_per_dim(params.pads_end, x.rank, "pads_end")
        shape = []
        for i, (begin, end) in enumerate(zip(params.pads_begin, params.pads_end, strict=True)):
            kept = x.shape[i] + min(begin, 0) + min(end, 0)
            require(
                kept >= 0, f"pads {begin} and {end} crop more than extent {x.shape[i]} of dim {i}"
            )
            widest = max(begin, end)
            room = {"constant": widest, "reflect": kept - 1}.get(params.mode)
            if room is None:
                room = widest if kept > 0 else 0
            require(
                widest <= max(room, 0),
                f"{params.mode} pads {begin} and {end} of dimension {i} need more than its "
                f"{kept} elements",
            )
            shape.append(kept + max(begin, 0) + max(end, 0))
        return [TensorType(tuple(shape), x.dtype)]

    def reference(self, params: PadParams, inputs: Sequence[Array]) -> list[Array]:
        """Crop, then numpy.pad."""
        x = np.asarray(inputs[0])
        pads = list(zip(params.pads_begin, params.pads_end, strict=True))
        crop = tuple(
            slice(max(0, -b), n - max(0, -e)) for n, (b, e) in zip(x.shape, pads, strict=True)
        )
        widths = [(max(0, b), max(0, e)) for b, e in pads]
        if not widths:
            return [x.copy()]
        if params.mode == "constant":
            return [np.pad(x[crop], widths, constant_values=params.value)]
        return [np.pad(x[crop], widths, mode=params.mode)]


DEFINITION: LayerDefinition = Pad()

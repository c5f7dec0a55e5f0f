"""Box selection: the core of non-maximum suppression, one list of boxes per batch and class."""

from __future__ import annotations

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
class BoxSelectionParams:
    """When a box is kept.

    Attributes:
        max_count: boxes per batch and class.
        iou_threshold: a box that overlaps a kept one by more is dropped.
        score_threshold: only boxes with a higher score take part; None: all.
        is_centred: boxes are (x centre, y centre, width, height), else two corners (y1,x1,y2,x2).
    """

    max_count: int
    iou_threshold: float = 0.0
    score_threshold: float | None = None
    is_centred: bool = False


class BoxSelection:
    """boxes[B,N,4], scores[B,C,N] -> INT64 [B,C,max_count]: box numbers, best score first, then -1.

    Of equal scores the smaller number wins.
    """

    kind = "box_selection"
    params_type = BoxSelectionParams

    def infer(self, params: BoxSelectionParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Check shapes and the bound."""
        require_num_inputs(inputs, 2)
        boxes, scores = inputs
        require(
            boxes.rank == scores.rank == 3
            and boxes.shape[2] == 4
            and (boxes.shape[0], boxes.shape[1]) == (scores.shape[0], scores.shape[2]),
            f"boxes {boxes} and scores {scores} do not fit each other",
        )
        require(params.max_count >= 0, f"max_count {params.max_count} must not be negative")
        return [TensorType((*scores.shape[:2], params.max_count), DataType.INT64)]

    def reference(self, params: BoxSelectionParams, inputs: Sequence[Array]) -> list[Array]:
        """Greedy, list after list."""
        boxes, scores = (np.asarray(v, dtype=np.float64) for v in inputs)
        y = np.full((*scores.shape[:2], params.max_count), -1, np.int64)
        for batch, number in np.ndindex(*scores.shape[:2]):
            own = scores[batch, number]
            kept: list[int] = []
            for index in np.argsort(-own, kind="stable"):
                if len(kept) == params.max_count:
                    break
                if params.score_threshold is not None and not own[index] > params.score_threshold:
                    continue
                corners = [_corners(params, boxes[batch, k]) for k in (index, *kept)]
                if all(_overlap(corners[0], c) <= params.iou_threshold for c in corners[1:]):
                    kept.append(int(index))
            y[batch, number, : len(kept)] = kept
        return [y]


def _corners(params: BoxSelectionParams, box: Array) -> tuple[float, ...]:
    a, b, c, d = (float(v) for v in box)
    if params.is_centred:
        return b - d / 2, a - c / 2, b + d / 2, a + c / 2
    return min(a, c), min(b, d), max(a, c), max(b, d)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union; 0 for boxes without area."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(height, 0.0) * max(width, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if inter > 0 and union > 0 else 0.0


DEFINITION: LayerDefinition = BoxSelection()

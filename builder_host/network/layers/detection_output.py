"""Detection output of SSD: decode boxes, suppress overlaps per class, keep the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.rules import require, require_num_inputs
from builder_host.network.tensor_type import TensorType

Array = npt.NDArray[Any]

CODE_TYPES = ("corner", "center_size", "corner_size")


@dataclass(frozen=True, slots=True)
class DetectionOutputParams:
    """Fields of SSD's DetectionOutputParameter.

    Attributes:
        num_classes: background included.
        share_location: one box per prior for all classes.
        background_label_id: class left out; -1 = none.
        nms_threshold, top_k, eta: suppression per class; top_k -1 = all candidates.
        keep_top_k: detections per image over all classes; -1 = all.
        confidence_threshold: only scores above it are candidates.
        code_type: how boxes are coded against priors.
        variance_encoded_in_target: the predictions hold the variances already.
    """

    num_classes: int
    share_location: bool = True
    background_label_id: int = 0
    nms_threshold: float = 0.3
    top_k: int = -1
    keep_top_k: int = -1
    confidence_threshold: float = -np.inf
    code_type: Literal["corner", "center_size", "corner_size"] = "corner"
    variance_encoded_in_target: bool = False
    eta: float = 1.0


class DetectionOutput:
    """loc [N,P*L*4], conf [N,P*classes], prior [1,2,P*4] -> [1,1,rows,7].

    Rows are image, label, score, x1, y1, x2, y2, dense from the first; the rest holds -1.
    L is 1 with share_location, else the number of classes.
    """

    kind = "detection_output"
    params_type = DetectionOutputParams

    def infer(
        self, params: DetectionOutputParams, inputs: Sequence[TensorType]
    ) -> list[TensorType]:
        """Check the counts of all three inputs."""
        require_num_inputs(inputs, 3)
        loc, conf, prior = inputs
        require(
            params.code_type in CODE_TYPES,
            f"code_type '{params.code_type}' is none of {CODE_TYPES}",
        )
        require(prior.rank >= 3 and prior.shape[1] == 2, f"prior must be [1,2,4P], got {prior}")
        images, priors = loc.shape[0], prior.num_elems // prior.shape[0] // 8
        sets = 1 if params.share_location else params.num_classes
        wanted = images * priors * sets * 4
        require(
            loc.num_elems == wanted,
            f"locations {loc} hold {loc.num_elems} values, {priors} priors need {wanted}",
        )
        wanted = images * priors * params.num_classes
        require(
            conf.num_elems == wanted,
            f"confidences {conf} hold {conf.num_elems} values, {priors} priors of "
            f"{params.num_classes} classes need {wanted}",
        )
        return [TensorType((1, 1, images * max_detections(params, priors), 7), loc.dtype)]

    def reference(self, params: DetectionOutputParams, inputs: Sequence[Array]) -> list[Array]:
        """As the CPU code path of SSD, in float64."""
        loc, conf, prior = (np.asarray(v, dtype=np.float64) for v in inputs)
        images = loc.shape[0]
        boxes, variances = prior.reshape(-1, 2, prior.size // prior.shape[0] // 2)[0]
        boxes, variances = boxes.reshape(-1, 4), variances.reshape(-1, 4)
        priors = len(boxes)
        loc = loc.reshape(images, priors, -1, 4)
        conf = conf.reshape(images, priors, params.num_classes)
        out = np.full((images * max_detections(params, priors), 7), -1.0)
        row = 0
        for image in range(images):
            found = _detections(params, loc[image], conf[image], boxes, variances)
            out[row : row + len(found), 0] = image
            out[row : row + len(found), 1:] = found
            row += len(found)
        return [out[None, None]]


def max_detections(params: DetectionOutputParams, num_priors: int) -> int:
    """Rows reserved per image."""
    if params.keep_top_k >= 0:
        return params.keep_top_k
    per_class = num_priors if params.top_k < 0 else min(params.top_k, num_priors)
    has_background = 0 <= params.background_label_id < params.num_classes
    return per_class * (params.num_classes - has_background)


def _detections(
    params: DetectionOutputParams, loc: Array, conf: Array, boxes: Array, variances: Array
) -> Array:
    """Rows (label, score, x1, y1, x2, y2) of one image, by label, then by falling score."""
    kept: list[tuple[float, int, int]] = []  # score, label, prior
    decoded: dict[int, Array] = {}
    for label in range(params.num_classes):
        if label == params.background_label_id:
            continue
        column = 0 if params.share_location else label
        if column not in decoded:
            decoded[column] = decode_boxes(params, loc[:, column], boxes, variances)
        scores = conf[:, label]
        kept += [(scores[i], label, i) for i in _suppressed(params, decoded[column], scores)]
    if 0 <= params.keep_top_k < len(kept):
        kept = sorted(kept, key=lambda entry: -entry[0])[: params.keep_top_k]
        kept.sort(key=lambda entry: entry[1])
    rows = [
        (label, score, *decoded[0 if params.share_location else label][index])
        for score, label, index in kept
    ]
    return np.asarray(rows, dtype=np.float64).reshape(-1, 6)


def decode_boxes(
    params: DetectionOutputParams, codes: Array, priors: Array, variances: Array
) -> Array:
    """Corner boxes [P,4] of predictions against priors."""
    if params.variance_encoded_in_target:
        variances = np.ones_like(variances)
    scaled = codes * variances
    if params.code_type == "corner":
        return np.asarray(priors + scaled)
    size = priors[:, 2:] - priors[:, :2]
    if params.code_type == "corner_size":
        return np.asarray(priors + scaled * np.concatenate([size, size], axis=1))
    centre = (priors[:, :2] + priors[:, 2:]) / 2 + scaled[:, :2] * size
    half = np.exp(scaled[:, 2:]) * size / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _suppressed(params: DetectionOutputParams, boxes: Array, scores: Array) -> list[int]:
    """Indices that survive the greedy suppression of one class, by falling score."""
    order = [int(i) for i in np.argsort(-scores, kind="stable")]
    order = [i for i in order if scores[i] > params.confidence_threshold]
    if params.top_k >= 0:
        order = order[: params.top_k]
    kept: list[int] = []
    threshold = params.nms_threshold
    for index in order:
        if all(overlap(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(index)
            if params.eta < 1 and threshold > 0.5:
                threshold *= params.eta
    return kept


def overlap(a: Array, b: Array) -> float:
    """Intersection over union of two corner boxes; 0 when they do not meet."""
    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / (_area(a) + _area(b) - shared))


def _area(box: Array) -> float:
    if box[2] < box[0] or box[3] < box[1]:
        return 0.0
    return float((box[2] - box[0]) * (box[3] - box[1]))


DEFINITION: LayerDefinition = DetectionOutput()

"""DetectionOutput of SSD: decoded boxes after suppression."""

from __future__ import annotations

import math
from typing import Literal

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.network.layers.detection_output import DetectionOutputParams

TYPES = ("DetectionOutput",)
CodeType = Literal["corner", "center_size", "corner_size"]
_CODE_TYPES: dict[str, CodeType] = {
    "CORNER": "corner",
    "CENTER_SIZE": "center_size",
    "CORNER_SIZE": "corner_size",
}


def convert(layer: CaffeLayer) -> None:
    """Bottoms: locations, confidences, priors. The output has a fixed number of rows."""
    layer.require_bottoms(3)
    param = layer.message.detection_output_param
    if not param.HasField("num_classes"):
        raise LayerProblem("num_classes is missing")
    nms = param.nms_param
    params = DetectionOutputParams(
        num_classes=param.num_classes,
        share_location=param.share_location,
        background_label_id=param.background_label_id,
        nms_threshold=nms.nms_threshold,
        top_k=nms.top_k if nms.HasField("top_k") else -1,
        keep_top_k=param.keep_top_k,
        confidence_threshold=(
            param.confidence_threshold if param.HasField("confidence_threshold") else -math.inf
        ),
        code_type=_CODE_TYPES[
            type(param)
            .DESCRIPTOR.fields_by_name["code_type"]
            .enum_type.values_by_number[param.code_type]
            .name
        ],
        variance_encoded_in_target=param.variance_encoded_in_target,
        eta=nms.eta,
    )
    loc, conf, prior = layer.bottoms
    rows = [
        layer.reshaped(t, (t.shape[0], math.prod(t.shape[1:])), part)
        for t, part in ((loc, "locations"), (conf, "confidences"))
    ]
    layer.emit("detection_output", params, [*rows, prior])

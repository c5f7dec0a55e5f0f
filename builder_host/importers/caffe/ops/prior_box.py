"""PriorBox of SSD: depends on shapes alone, so it becomes a constant."""

from __future__ import annotations

from typing import Any

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem, check_constant_size
from builder_host.network.layers.priorbox import DEFINITION, PriorBoxParams, prior_boxes

TYPES = ("PriorBox",)


def convert(layer: CaffeLayer) -> None:
    """Bottoms: feature map and image, both NxCxHxW."""
    layer.require_bottoms(2)
    params = _params(layer.message.prior_box_param)
    features, image = layer.bottoms
    (made,) = DEFINITION.infer(params, [features.type, image.type])
    check_constant_size("the boxes", made.shape)
    boxes = prior_boxes(params, features.shape[2:], image.shape[2:])
    layer.alias(layer.constant(boxes, "boxes"))


def _params(param: Any) -> PriorBoxParams:
    if any(size <= 0 for size in [*param.min_size, *param.max_size]):
        raise LayerProblem(
            f"sizes {list(param.min_size)} and {list(param.max_size)} must be positive"
        )
    if any(ratio <= 0 for ratio in param.aspect_ratio):
        raise LayerProblem(f"aspect ratios {list(param.aspect_ratio)} must be positive")
    if param.max_size and any(
        high <= low for low, high in zip(param.min_size, param.max_size, strict=False)
    ):
        raise LayerProblem(
            f"max_size {list(param.max_size)} must be above min_size {list(param.min_size)}"
        )
    height, width = _pair(param, "img_size", "img_h", "img_w")
    step_height, step_width = _pair(param, "step", "step_h", "step_w")
    return PriorBoxParams(
        min_sizes=tuple(param.min_size),
        max_sizes=tuple(param.max_size),
        aspect_ratios=tuple(param.aspect_ratio),
        flip=param.flip,
        clip=param.clip,
        variances=tuple(param.variance) or (0.1,),
        image_height=int(height),
        image_width=int(width),
        step_height=step_height,
        step_width=step_width,
        offset=param.offset,
    )


def _pair(param: Any, one: str, high: str, wide: str) -> tuple[float, float]:
    """Both values, 0 when not stated."""
    if param.HasField(one):
        if param.HasField(high) or param.HasField(wide):
            raise LayerProblem(f"{one} and {high}/{wide} are both stated; keep one")
        return getattr(param, one), getattr(param, one)
    return getattr(param, high), getattr(param, wide)

"""Scale and Bias: a factor, an offset, or both along some axes; learned or a second bottom."""

from __future__ import annotations

import numpy as np

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.network.layers.scale import ScaleParams
from builder_host.network.network import Tensor

TYPES = ("Bias", "Scale")


def convert(layer: CaffeLayer) -> None:
    """One scale layer whose factor and offset broadcast over the other axes."""
    layer.require_bottoms(1, 2)
    is_scale = layer.message.type == "Scale"
    param = layer.message.scale_param if is_scale else layer.message.bias_param
    bottom = layer.bottoms[0]
    axis = layer.axis(param.axis, bottom, end=True)
    if len(layer.bottoms) == 2:
        shape = layer.bottoms[1].shape
    else:
        shape = _covered(bottom, axis, param.num_axes)
    if bottom.shape[axis : axis + len(shape)] != shape:
        raise LayerProblem(
            f"the second bottom {shape_text(layer.bottoms[1])} does not match "
            f"{shape_text(bottom)} from axis {axis} on"
        )
    has_shift = param.bias_term if is_scale else True
    learned = []
    if len(layer.bottoms) == 1:
        learned.append(
            BlobSpec("scale", shape, "scale") if is_scale else BlobSpec("bias", shape, "bias")
        )
    if is_scale and has_shift:
        learned.append(BlobSpec("bias", shape, "bias"))
    arrays = layer.weights(learned) if learned else []
    full = (1,) * axis + shape + (1,) * (len(bottom.shape) - axis - len(shape))
    parts: dict[str, Tensor] = {
        spec.role: layer.constant(np.reshape(values, full), spec.role)
        for spec, values in zip(learned, arrays, strict=True)
    }
    if len(layer.bottoms) == 2:
        parts["scale" if is_scale else "bias"] = layer.reshaped(layer.bottoms[1], full, "broadcast")
    operands = [parts[role] for role in ("bias", "scale") if role in parts]
    layer.emit(
        "scale",
        ScaleParams(has_shift="bias" in parts, has_scale="scale" in parts, has_power=False),
        [bottom, *operands],
    )


def _covered(bottom: Tensor, axis: int, num_axes: int) -> tuple[int, ...]:
    """Shape of the learned blob: `num_axes` dimensions from `axis` on; -1 is all the rest."""
    if num_axes < -1:
        raise LayerProblem(f"num_axes is {num_axes}, must be -1 or more")
    end = len(bottom.shape) if num_axes == -1 else axis + num_axes
    if end > len(bottom.shape):
        raise LayerProblem(
            f"axis {axis} and num_axes {num_axes} go past the bottom {shape_text(bottom)}"
        )
    return bottom.shape[axis:end]

"""BatchNorm: BVLC's three blobs, or NVCaffe's five with scale and bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.expressions import Binary, Const, Input, Unary
from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.reduce import ReduceParams
from builder_host.network.layers.scale import ScaleParams
from builder_host.network.network import Tensor

Array = npt.NDArray[Any]

TYPES = ("BatchNorm",)
_NUM_BLOBS_BVLC, _NUM_BLOBS_NVCAFFE = 3, 5


def convert(layer: CaffeLayer) -> None:
    """One scale layer from the stored statistics; from those of the batch when told so."""
    param = layer.message.batch_norm_param
    bottom = layer.bottom
    channels = bottom.shape[1] if len(bottom.shape) > 1 else 1
    if len(bottom.shape) < 1:
        raise LayerProblem(f"the bottom {shape_text(bottom)} has no batch dimension")
    count = layer.source.num_blobs(layer.name)
    five = count == _NUM_BLOBS_NVCAFFE if count else param.scale_bias
    specs = [
        BlobSpec("mean", (channels,), "mean"),
        BlobSpec("variance", (channels,), "variance"),
        BlobSpec("factor", (1,), "one"),
    ]
    if five:
        # NVCaffe keeps five blobs in this order; its factor is not applied.
        specs += [
            BlobSpec("scale", (channels,), "scale"),
            BlobSpec("bias", (channels,), "bias"),
        ]
    arrays = [a.astype(np.float64) for a in layer.weights(specs)]
    gain = arrays[3] if five else np.ones(channels)
    offset = arrays[4] if five else np.zeros(channels)
    if param.HasField("use_global_stats") and not param.use_global_stats:
        _batch_statistics(layer, param.eps, gain, offset)
        return
    mean, variance, factor = arrays[:3]
    if not five:
        # BVLC stores sums; a factor of 0 means that nothing was summed.
        inverse = 0.0 if factor[0] == 0.0 else 1.0 / factor[0]
        mean, variance = mean * inverse, variance * inverse
    if np.any(variance + param.eps <= 0):
        raise LayerProblem(
            f"variance {variance.min():g} with eps {param.eps:g} is not positive; "
            "the weights are damaged or eps is missing"
        )
    scale = gain / np.sqrt(variance + param.eps)
    shift = offset - mean * scale
    inputs = [bottom, _per_channel(layer, shift, "shift"), _per_channel(layer, scale, "scale")]
    layer.emit("scale", ScaleParams(has_shift=True, has_scale=True, has_power=False), inputs)


def _per_channel(layer: CaffeLayer, values: Array, role: str) -> Tensor:
    rank = len(layer.bottom.shape)
    shape = (1, values.size) + (1,) * (rank - 2) if rank > 1 else (1,)
    return layer.constant(values.reshape(shape), role)


def _batch_statistics(layer: CaffeLayer, eps: float, gain: Array, offset: Array) -> None:
    """`use_global_stats: false`: mean and variance of each channel over the batch itself."""
    bottom = layer.bottom
    axes = tuple(a for a in range(len(bottom.shape)) if a != 1)
    mean = layer.add("reduce", ReduceParams("mean", axes), [bottom], "mean")
    centred = layer.add(
        "pointwise", PointwiseParams(Binary("sub", Input(0), Input(1))), [bottom, mean], "centred"
    )
    square = layer.add(
        "pointwise", PointwiseParams(Binary("mul", Input(0), Input(0))), [centred], "square"
    )
    variance = layer.add("reduce", ReduceParams("mean", axes), [square], "variance")
    unit = Binary("mul", Input(0), Unary("rsqrt", Binary("add", Input(1), Const(eps))))
    expr = Binary("add", Binary("mul", unit, Input(2)), Input(3))
    operands = [_per_channel(layer, gain, "scale"), _per_channel(layer, offset, "shift")]
    layer.emit("pointwise", PointwiseParams(expr), [centred, variance, *operands])

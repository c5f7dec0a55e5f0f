"""BN: batch normalisation with its own scale and shift, as SegNet (2 blobs) and PSPNet (4) have."""

from __future__ import annotations

import numpy as np

from builder_host.importers.caffe.layer import CaffeLayer, shape_text
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.network.layers.scale import ScaleParams

TYPES = ("BN",)
_NUM_BLOBS_FOLDED, _NUM_BLOBS_FULL = 2, 4


def convert(layer: CaffeLayer) -> None:
    """One scale layer.

    Two blobs are a scale and a shift with the statistics folded in (`bn_mode: INFERENCE`); four are
    slope, bias, mean and variance.
    """
    param = layer.message.bn_param
    bottom = layer.bottom
    if len(bottom.shape) < 2:
        raise LayerProblem(f"the bottom {shape_text(bottom)} has no channels")
    is_folded = param.BNMode.Name(param.bn_mode) == "INFERENCE"
    count = layer.source.num_blobs(layer.name)
    if count is not None and count == _NUM_BLOBS_FOLDED and not is_folded:
        raise LayerProblem(
            "two blobs without bn_mode: INFERENCE normalise with the batch's own statistics; "
            "compute the test statistics and export the folded network"
        )
    # Both write 1xCx1x1; converters of such files often write C alone.
    stored = layer.source.stored(layer.name)
    is_flat = bool(stored) and stored[0].ndim == 1
    channels = (bottom.shape[1],) if is_flat else (1, bottom.shape[1], 1, 1)
    specs = [BlobSpec("scale", channels, "scale"), BlobSpec("bias", channels, "bias")]
    if not is_folded or count == _NUM_BLOBS_FULL:
        specs += [BlobSpec("mean", channels, "mean"), BlobSpec("variance", channels, "variance")]
    scale, shift, *statistics = (a.astype(np.float64) for a in layer.weights(specs))
    if statistics:
        mean, variance = statistics
        if np.any(variance + param.eps <= 0):
            raise LayerProblem(
                f"variance {variance.min():g} with eps {param.eps:g} is not positive; "
                "the caffemodel is damaged"
            )
        scale = scale / np.sqrt(variance + param.eps)
        shift = shift - mean * scale
    shape = (1, bottom.shape[1], *(1,) * (len(bottom.shape) - 2))
    operands = [layer.constant(shift.reshape(shape), "bias")]
    operands.append(layer.constant(scale.reshape(shape), "scale"))
    params = ScaleParams(has_shift=True, has_scale=True, has_power=False)
    layer.emit("scale", params, [bottom, *operands])

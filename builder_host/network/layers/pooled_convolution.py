"""Convolution and the maximum over windows of its result: what a fused pair computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.network.definition import LayerDefinition
from builder_host.network.layers import convolution, pooling
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.rules import require
from builder_host.network.tensor_type import TensorType
from builder_host.network.windows import dilated

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PooledConvolutionParams:
    """The parameters of both layers; the pooling is a maximum."""

    convolution: ConvolutionParams
    pooling: PoolingParams


class PooledConvolution:
    """x[N,C,*S], w[K,C/G,*F], optional b[K] -> y[N,K,*output_spatial of the pooling].

    Made by `passes/fuse_pooling.py`; importers and the network-definition API keep the two apart.
    """

    kind = "pooled_convolution"
    params_type = PooledConvolutionParams

    def infer(
        self, params: PooledConvolutionParams, inputs: Sequence[TensorType]
    ) -> list[TensorType]:
        """The rules of both layers."""
        mode = params.pooling.mode
        require(mode == "max", f"pooling mode is '{mode}', only max can follow in one kernel")
        between = convolution.DEFINITION.infer(params.convolution, inputs)
        return pooling.DEFINITION.infer(params.pooling, between)

    def reference(self, params: PooledConvolutionParams, inputs: Sequence[Array]) -> list[Array]:
        """One after the other."""
        between = convolution.DEFINITION.reference(params.convolution, inputs)
        return pooling.DEFINITION.reference(params.pooling, [np.asarray(between[0])])


def windows_are_whole(params: PoolingParams, extents: Sequence[int]) -> bool:
    """Whether no window reaches over the tensor that it pools, padding included.

    Args:
        params: of the pooling.
        extents: spatial extents of that tensor.
    """
    reach = zip(
        params.output_spatial, params.strides, params.window, params.dilations, extents, strict=True
    )
    return not any(params.pads_begin) and all(
        (out - 1) * stride + (window - 1) * dilation < extent
        for out, stride, window, dilation, extent in reach
    )


def is_quartered(params: PooledConvolutionParams, x: Sequence[int], weights: Sequence[int]) -> bool:
    """Whether windows are 2x2, side by side and whole: every kernel for these pairs needs that.

    Args:
        params: of the pair.
        x: shape of the input, rank 4.
        weights: shape of the weights, rank 4.
    """
    pool, conv = params.pooling, params.convolution
    if not (pool.window == pool.strides == (2, 2) and pool.dilations == (1, 1)):
        return False
    extents = [
        (x[2 + i] + conv.pads_begin[i] + conv.pads_end[i] - dilated(weights[2 + i], dilation))
        // conv.strides[i]
        + 1
        for i, dilation in enumerate(conv.dilations)
    ]
    return windows_are_whole(pool, extents)


DEFINITION: LayerDefinition = PooledConvolution()

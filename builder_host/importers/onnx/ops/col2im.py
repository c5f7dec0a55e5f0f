"""Col2Im: blocks added up into an image, a transposed convolution with weights of one."""

from __future__ import annotations

import math

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.deconvolution import DeconvolutionParams
from builder_host.network.network import Tensor


@operator("Col2Im", since=(18,))
def col2im(node: Node) -> Tensor:
    """Column k of a channel adds tap k of that channel's window."""
    x = node.input(0)
    image = node.constant_ints(1, "image_shape")
    block = node.constant_ints(2, "block_shape")
    rank, taps = len(image), math.prod(block)
    if len(block) != rank or x.type.rank != 3 or min(*image, *block) < 1 or x.shape[1] % taps:
        node.fail(f"blocks {block} of an image {image} do not fit {x.type}")
    strides = node.attr_ints("strides") or (1,) * rank
    dilations = node.attr_ints("dilations") or (1,) * rank
    pads = node.attr_ints("pads") or (0,) * (2 * rank)
    if not len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        node.fail(f"strides, dilations and pads must have one value per dimension of {image}")
    extents, missing = [], []
    for d in range(rank):
        room = image[d] + pads[d] + pads[rank + d] - (block[d] - 1) * dilations[d] - 1
        if room < 0 or strides[d] < 1:
            node.fail(f"blocks {block} do not fit the image {image} with pads {pads}")
        extents.append(room // strides[d] + 1)
        missing.append(room % strides[d])  # a last stretch that no block reaches
    if math.prod(extents) != x.shape[2]:
        node.fail(f"{x.type} holds {x.shape[2]} blocks, the image has {math.prod(extents)}")
    channels = x.shape[1] // taps
    node.check_size((x.shape[1], taps))
    weights = np.tile(np.eye(taps).reshape(taps, 1, *block), (channels, *(1,) * (rank + 1)))
    params = DeconvolutionParams(
        strides, pads[:rank], pads[rank:], dilations, tuple(missing), channels
    )
    spread = node.reshape(x, (x.shape[0], x.shape[1], *extents))
    return node.add("deconvolution", params, spread, node.const(weights, x.dtype))

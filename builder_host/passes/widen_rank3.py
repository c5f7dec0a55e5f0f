"""convolution, deconvolution, pooling on [N,C,L] -> on [N,C,1,L] between reshapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from builder_host.network.editing import insert_before, replace_tensor
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.network import Layer, Network, Tensor

_WINDOWED = ("convolution", "deconvolution", "pooling")
_ONE = ("strides", "dilations", "window", "output_spatial")
_ZERO = ("pads_begin", "pads_end", "output_padding")


def run(network: Network) -> int:
    """Give one-dimensional layers a height of 1, so that the image kernels compute them.

    Pointwise layers in such a network follow; the reshapes between cancel in remove_identities.

    Returns:
        Number of layers widened.
    """
    windowed = [y for y in network.layers if y.kind in _WINDOWED and y.inputs[0].type.rank == 3]
    if not windowed:
        return 0
    widened = 0
    for layer in list(network.layers):
        if layer in windowed:
            _widen(network, layer, _wide_params(layer.params))
            widened += 1
        elif layer.kind == "pointwise" and _is_one_dimensional(layer):
            _widen(network, layer, layer.params)
            widened += 1
    return widened


def _wide_params(params: Any) -> Any:
    fields = {name: (1, *getattr(params, name)) for name in _ONE if hasattr(params, name)}
    fields |= {name: (0, *getattr(params, name)) for name in _ZERO if hasattr(params, name)}
    return replace(params, **fields)


def _is_one_dimensional(layer: Layer) -> bool:
    """A pointwise layer on [N,C,L]: the others are of that rank, or per element of the end."""
    return layer.output.type.rank == 3 and layer.epilogue is None


def _widen(network: Network, layer: Layer, params: Any) -> None:
    inputs = [_wide_input(network, layer, t) for t in layer.inputs]
    wide = insert_before(network, layer, layer.kind, params, inputs, f"{layer.name}.wide")
    shape = layer.output.shape
    narrow = insert_before(
        network, layer, "reshape", ReshapeParams(shape), [wide.output], f"{layer.name}.narrow"
    )
    replace_tensor(network, layer.output, narrow.output)
    network.layers.remove(layer)


def _wide_input(network: Network, layer: Layer, tensor: Tensor) -> Tensor:
    """[..., C, L] -> [..., C, 1, L]; a bias or a row of values stays."""
    if tensor.type.rank < 2:
        return tensor
    shape = (*tensor.shape[:-1], 1, tensor.shape[-1])
    if tensor.values is not None:
        return network.add_constant(tensor.values.reshape(shape), f"{tensor.name}.wide")
    reshaped = insert_before(
        network, layer, "reshape", ReshapeParams(shape), [tensor], f"{tensor.name}.wide"
    )
    return reshaped.output

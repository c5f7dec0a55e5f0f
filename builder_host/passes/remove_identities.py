"""x -> identity -> y becomes x -> y; chains of reshapes, transposes, casts -> one or none."""

from __future__ import annotations

from builder_host.expressions import Input
from builder_host.network.editing import bypass_layer, update_layer
from builder_host.network.layers.pad import PadParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.layers.resize import is_copied
from builder_host.network.layers.transpose import TransposeParams
from builder_host.network.network import Layer, Network
from planformat.datatypes import DataType

_EXACT_IN = {  # a type -> wider types that hold each of its values
    DataType.FLOAT16: {DataType.FLOAT32, DataType.FLOAT64},
    DataType.BFLOAT16: {DataType.FLOAT32, DataType.FLOAT64},
    DataType.FLOAT32: {DataType.FLOAT64},
    DataType.INT8: {DataType.INT16, DataType.INT32, DataType.INT64, DataType.FLOAT32},
    DataType.UINT8: {DataType.INT16, DataType.INT32, DataType.INT64, DataType.FLOAT32},
    DataType.INT16: {DataType.INT32, DataType.INT64, DataType.FLOAT32},
    DataType.INT32: {DataType.INT64, DataType.FLOAT64},
}


def run(network: Network) -> int:
    """Remove identities and shorten chains until nothing changes; returns the number of edits."""
    total = 0
    while True:
        edits = sum(_rewrite(network, layer) for layer in list(network.layers))
        if edits == 0:
            return total
        total += edits


def _rewrite(network: Network, layer: Layer) -> int:
    if layer.epilogue is not None or len(layer.outputs) != 1:
        return 0
    source = layer.inputs[0]
    if layer.output.type == source.type and _is_identity(layer):
        return int(bypass_layer(network, layer, source))
    if _to_reshape(network, layer):
        return 1
    return int(_shorten_chain(network, layer))


def _is_identity(layer: Layer) -> bool:
    """Whether the one output equals input 0, given that their types agree."""
    params, kind = layer.params, layer.kind
    if kind in ("reshape", "cast", "broadcast", "concatenation"):
        return True
    if kind == "slice":
        return all(start == 0 for start in params.starts) and all(
            stride == 1 or size <= 1
            for stride, size in zip(params.strides, params.sizes, strict=True)
        )
    if kind == "transpose":
        return tuple(params.permutation) == tuple(range(len(params.permutation)))
    if kind == "pad":
        return _is_zero_pad(params)
    if kind == "resize":
        return all(is_copied(params, i, d) for i, d in enumerate(layer.output.shape))
    if kind == "pooling":
        return all(w == 1 for w in params.window) and all(
            s == 1 or d == 1 for s, d in zip(params.strides, layer.output.shape[2:], strict=True)
        )
    if kind == "scale":
        return not (params.has_shift or params.has_scale or params.has_power)
    if kind == "pointwise":
        return bool(params.expr == Input(0))
    return False


def _is_zero_pad(params: PadParams) -> bool:
    return not any((*params.pads_begin, *params.pads_end))


def _to_reshape(network: Network, layer: Layer) -> bool:
    """Transposes that move only extents of 1, and reductions over them, are reshapes."""
    shape = layer.inputs[0].shape
    if layer.kind == "transpose":
        moved = [i for i in layer.params.permutation if shape[i] != 1]
        if moved != sorted(moved):
            return False
    elif layer.kind == "reduce":
        if layer.params.op not in ("sum", "mean", "max", "min", "prod"):
            return False
        if any(shape[axis] != 1 for axis in layer.params.axes):
            return False
    else:
        return False
    update_layer(network, layer, kind="reshape", params=ReshapeParams(layer.output.shape))
    return True


def _shorten_chain(network: Network, layer: Layer) -> bool:
    before = layer.inputs[0].producer
    if before is None or before.kind != layer.kind or before.epilogue is not None:
        return False
    source = before.inputs[0]
    params = layer.params
    if layer.kind == "transpose":
        first, second = before.params.permutation, layer.params.permutation
        params = TransposeParams(tuple(first[i] for i in second))
    elif layer.kind == "cast":
        if before.output.dtype not in _EXACT_IN.get(source.dtype, ()):
            return False
    elif layer.kind != "reshape":
        return False
    update_layer(network, layer, params=params, inputs=[source])
    if before.output not in network.outputs and not network.readers_of(before.output):
        network.layers.remove(before)
    return True

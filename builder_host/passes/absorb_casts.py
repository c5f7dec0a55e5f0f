"""float32 binding -> cast -> layer: the layer reads (or writes) the binding's type itself.

Runs after layout assignment, on GPUs: a cast is a kernel of its own there, as long as a small
layer. Kernels compute in float32 whatever they store: values change by one rounding less at most.
"""

from __future__ import annotations

from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout, dense_layout
from builder_host.lowering.problems import Formats, layer_problem
from builder_host.network.editing import remove_layer
from builder_host.network.network import Layer, Network, Tensor
from planformat.datatypes import DataType, TensorFormat

_DTYPES = {DataType.FLOAT16, DataType.FLOAT32}
_READERS = ("convolution",)
_WRITERS = ("convolution", "fully_connected", "pooling", "softmax")


def run(
    network: Network, formats: dict[Tensor, TensorFormat], choice: FamilyChoice, num_workers: int
) -> int:
    """Remove casts whose neighbour can do their work at no more than their cost.

    Args:
        network: with layouts assigned.
        formats: of every computed tensor; removed tensors are taken out.
        choice: tells what can be computed.
        num_workers: as for `layer_problem`.

    Returns:
        Number of casts removed.
    """
    count = 0
    for layer in list(network.layers):
        dtypes = {t.dtype for t in (*layer.inputs, *layer.outputs)}
        if layer.kind == "cast" and layer.epilogue is None and dtypes == _DTYPES:
            absorbed = _into_readers(network, layer, formats, choice, num_workers)
            count += absorbed or _into_writer(network, layer, formats, choice, num_workers)
    return count


def _into_readers(
    network: Network,
    cast: Layer,
    formats: dict[Tensor, TensorFormat],
    choice: FamilyChoice,
    num_workers: int,
) -> bool:
    wide, narrow = cast.inputs[0], cast.outputs[0]
    readers = network.readers_of(narrow)
    if wide.is_constant or narrow in network.outputs or len(readers) != 1:
        return False
    reader = readers[0]
    if reader.kind not in _READERS or reader.inputs.count(narrow) != 1:
        return False
    if reader.inputs[0] is not narrow:
        return False
    before = choice.cost_us(_problem(reader, formats, num_workers))
    before += choice.cost_us(_problem(cast, formats, num_workers))
    reader.inputs[0] = wide
    if choice.cost_us(_problem(reader, formats, num_workers)) > before:
        reader.inputs[0] = narrow
        return False
    remove_layer(network, cast)
    del formats[narrow]
    return True


def _into_writer(
    network: Network,
    cast: Layer,
    formats: dict[Tensor, TensorFormat],
    choice: FamilyChoice,
    num_workers: int,
) -> bool:
    narrow, wide = cast.inputs[0], cast.outputs[0]
    writer = narrow.producer
    if writer is None or writer.kind not in _WRITERS or len(writer.outputs) != 1:
        return False
    if narrow in network.outputs or len(network.readers_of(narrow)) != 1:
        return False
    if formats[narrow] is not formats[wide]:
        return False
    before = choice.cost_us(_problem(writer, formats, num_workers))
    before += choice.cost_us(_problem(cast, formats, num_workers))
    writer.outputs[0] = wide
    if choice.cost_us(_problem(writer, formats, num_workers)) > before:
        writer.outputs[0] = narrow
        return False
    wide.producer = writer
    network.layers.remove(cast)
    del formats[narrow]
    # The same values, by whose names calibration and comparison go. Behind a network output it is
    # the output that has kept its name.
    is_output = wide in network.outputs
    names = [n for n in network.names_of(narrow) if not (is_output and n == narrow.name)]
    for name in names:
        network.aliases.pop(name, None)
    network.aliases.update(dict.fromkeys(reversed(names), wide))
    return True


def _problem(layer: Layer, formats: Formats, num_workers: int) -> Problem:
    def layout_of(tensor: Tensor) -> Layout:
        return dense_layout(tensor.type, formats[tensor])

    return layer_problem(layer, layout_of, num_workers)

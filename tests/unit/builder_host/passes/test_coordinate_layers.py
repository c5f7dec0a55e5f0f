"""Layers that read positions keep float32 when a network is stored in float16."""

import numpy as np

from builder_host.network.network import Network
from builder_host.passes import narrow_float
from planformat.datatypes import DataType


def test_regions_and_grids_stay_float32_between_narrow_neighbours():
    network = Network()
    x = network.add_input("x", (1, 4, 8, 8))
    regions = network.add_input("regions", (3, 4))
    features = network.add_activation(x, "tanh").output
    cells = network.add_roi_align(features, regions, np.asarray([0, 0, 0]), (2, 2))
    network.mark_output(network.add_activation(cells.output, "relu").output, "y")
    narrow_float.run(network)
    by_kind = {layer.kind: layer for layer in network.layers}
    aligned = by_kind["roi_align"]
    assert [t.dtype for t in aligned.inputs[:2]] == [DataType.FLOAT32] * 2
    assert aligned.inputs[1] is regions  # never rounded to float16
    assert aligned.output.dtype is DataType.FLOAT32
    activations = [y for y in network.layers if y.kind == "activation"]
    assert all(y.output.dtype is DataType.FLOAT16 for y in activations)


def test_positions_stored_as_floats_are_not_rounded():
    """As a mask of Caffe's pooling, which its unpooling turns into positions again."""
    network = Network()
    x = network.add_input("x", (1, 64, 80))
    best = network.add_arg_reduce(x, "max", 2)
    position = network.add_cast(best.output, DataType.FLOAT32)
    again = network.add_cast(position.output, DataType.INT64)
    network.mark_output(position.output, "position")
    network.mark_output(again.output, "again")
    network.mark_output(network.add_activation(x, "relu").output, "y")
    narrow_float.run(network)
    assert position.output.dtype is DataType.FLOAT32
    assert again.inputs == [position.output]
    assert {y.output.dtype for y in network.layers if y.kind == "activation"} == {DataType.FLOAT16}

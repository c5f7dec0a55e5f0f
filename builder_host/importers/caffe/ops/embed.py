"""Embed: rows of a learned table, picked by numbers that Caffe stores as floats."""

from __future__ import annotations

from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.weight_source import BlobSpec
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.gather import GatherParams
from planformat.datatypes import DataType

TYPES = ("Embed",)


def convert(layer: CaffeLayer) -> None:
    """[...] -> [...,K]; the numbers are cut to integers as Caffe does."""
    param = layer.message.embed_param
    rows, maps = param.input_dim, param.num_output
    if rows < 1 or maps < 1:
        raise LayerProblem(f"input_dim is {rows}, num_output {maps}; both must be at least 1")
    specs = [BlobSpec("weights", (rows, maps), "weights")]
    if param.bias_term:
        specs.append(BlobSpec("bias", (maps,), "bias"))
    table, *bias = layer.weights(specs)
    indices = layer.add("cast", CastParams(DataType.INT32), [layer.bottom], "numbers")
    operands = [layer.constant(table, "weights"), indices]
    if not bias:
        layer.emit("gather", GatherParams(0), operands)
        return
    picked = layer.add("gather", GatherParams(0), operands, "rows")
    layer.emit("elementwise", ElementwiseParams("add"), [picked, layer.constant(bias[0], "bias")])

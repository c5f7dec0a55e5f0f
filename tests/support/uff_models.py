"""Small UFF files written for a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.importers.uff import schema
from builder_host.importers.uff.model import import_uff
from builder_host.importers.uff.orders import INCREMENT
from builder_host.network.evaluate import evaluate_network

Array = npt.NDArray[Any]

NHWC = [0, 2, INCREMENT, 1]
HWCK = [2, INCREMENT, 1, 0]
NC, CK = [0, 1], [1, 0]

_CODES = {"int8": 0x10008, "int16": 0x10010, "int32": 0x10020, "int64": 0x10040}
_CODES |= {"float16": 0x20010, "float32": 0x20020}


class UffFile:
    """A MetaGraph under construction."""

    def __init__(self) -> None:
        """Start with the head that converters write."""
        self.message = schema.message_class("MetaGraph")(version=1, descriptor_core_version=1)
        self.message.descriptors.add(id="tensorflow_extension", version=1)
        self.graph = self.message.graphs.add(id="main")

    def node(self, name: str, operation: str, *inputs: str, **fields: Any) -> str:
        """Add a node; lists of lists are orders, which are stored apart and referred to."""
        node = self.graph.nodes.add(id=name, operation=operation, inputs=inputs)
        for key, value in fields.items():
            if isinstance(value, list) and value and isinstance(value[0], list):
                reference = f"orders_{name}"
                for axes in value:
                    entry = self.message.referenced_data[reference].dim_orders_list.val.add()
                    entry.orders[-1].val.extend(axes)
                node.fields[key].ref = reference
            else:
                _set(node.fields[key], value)
        return name

    def constant(self, name: str, values: Array) -> str:
        """Add a Const whose values are stored apart."""
        node = self.graph.nodes.add(id=name, operation="Const")
        node.fields["dtype"].dtype = _CODES[values.dtype.name]
        _set(node.fields["shape"], list(values.shape))
        node.fields["values"].ref = f"weights_{name}"
        self.message.referenced_data[f"weights_{name}"].blob = values.tobytes()
        return name

    def input(self, name: str, shape: Sequence[int] = (), dtype: str = "float32") -> str:
        """Add an Input."""
        node = self.graph.nodes.add(id=name, operation="Input")
        node.fields["dtype"].dtype = _CODES[dtype]
        _set(node.fields["shape"], list(shape))
        return name

    def output(self, name: str) -> None:
        """Mark an output."""
        count = sum(node.operation == "MarkOutput" for node in self.graph.nodes)
        self.node(f"MarkOutput_{count}", "MarkOutput", name)

    def save(self, folder: Path) -> Path:
        """Write `m.uff`, the last nodes first, as converters do."""
        nodes = list(self.graph.nodes)
        del self.graph.nodes[:]
        self.graph.nodes.extend(reversed(nodes))
        path = folder / "m.uff"
        path.write_bytes(self.message.SerializeToString())
        return path


def _set(data: Any, value: Any) -> None:
    if isinstance(value, bool):
        data.b = value
    elif isinstance(value, int):
        data.i = value
    elif isinstance(value, float):
        data.d = value
    elif isinstance(value, str):
        data.s = value
    elif isinstance(value, bytes):
        data.blob = value
    else:
        data.i_list.SetInParent()
        data.i_list.val.extend(value)


def run_node(
    folder: Path,
    operation: str,
    x: Array,
    *constants: Array,
    order: str = "NHWC",
    **fields: Any,
) -> Array:
    """Output of one node in float64; `x` is computed, the other inputs are constants."""
    file = UffFile()
    names = [file.input("x", x.shape, x.dtype.name)]
    names += [file.constant(f"c{i}", array) for i, array in enumerate(constants)]
    file.node("y", operation, *names, **fields)
    file.output("y")
    options: Mapping[str, Any] = {"order": order}
    network = import_uff(file.save(folder), **options)
    return evaluate_network(network, {"x": np.asarray(x)})["y"]

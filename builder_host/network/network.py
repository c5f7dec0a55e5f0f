"""Network: tensors and layers in order, and the network-definition API.

Batch is explicit and shapes are static. Constants are tensors with values, not layers. A layer may
carry an epilogue: a scalar expression applied to each element of its first output, with further
tensors as operands. `add_layer` is the one door: the typed `add_*` methods call it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import NetworkError
from builder_host.expressions import Expr
from builder_host.network import layers as kinds
from builder_host.network.api_compute import ComputeMethods
from builder_host.network.api_index import IndexMethods
from builder_host.network.api_recurrent import RecurrentMethods
from builder_host.network.api_shape import ShapeMethods
from builder_host.network.api_windows import WindowMethods
from builder_host.network.origin import NetworkOrigin
from builder_host.network.rules import EIGHT_BITS, require_broadcastable_to
from builder_host.network.tensor_type import MAX_RANK, TensorType
from planformat.datatypes import DataType

if TYPE_CHECKING:
    from builder_host.plugins.plugin import Plugin

Array = npt.NDArray[Any]

DTYPE_OF_NUMPY: dict[str, DataType] = {
    "float32": DataType.FLOAT32,
    "float16": DataType.FLOAT16,
    "float64": DataType.FLOAT64,
    "int8": DataType.INT8,
    "uint8": DataType.UINT8,
    "int16": DataType.INT16,
    "uint16": DataType.UINT16,
    "int32": DataType.INT32,
    "uint32": DataType.UINT32,
    "int64": DataType.INT64,
    "uint64": DataType.UINT64,
    "bool": DataType.BOOL,
    "bfloat16": DataType.BFLOAT16,
}

NUMPY_OF_DTYPE: dict[DataType, str] = {
    dtype: name for name, dtype in DTYPE_OF_NUMPY.items() if dtype is not DataType.BFLOAT16
}


@dataclass(eq=False, slots=True, repr=False)
class Tensor:
    """A value in a network; compared by identity. `values` is set for constants only."""

    name: str
    type: TensorType
    values: Array | None = None
    producer: Layer | None = None

    def __repr__(self) -> str:
        """Short: a network is a graph, its whole text would never end."""
        kind = "constant" if self.is_constant else "tensor"
        return f"<{kind} '{self.name}' {self.type}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape, batch included."""
        return self.type.shape

    @property
    def dtype(self) -> DataType:
        """Element type."""
        return self.type.dtype

    @property
    def is_constant(self) -> bool:
        """Whether the values are known at build time."""
        return self.values is not None


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Expression applied to each element of a layer's first output.

    `Input(0)` is the layer's own result; `Input(1)` .. `Input(num_operands)` are the last
    `num_operands` inputs of the layer, numpy-broadcast against the output.

    A quantised network lives in these expressions: 8-bit operands are read as plain numbers, scales
    are factors, and an output tensor of INT8 or UINT8 stores what the expression rounded and
    clipped to its range.
    """

    expr: Expr
    num_operands: int = 0


@dataclass(eq=False, slots=True, repr=False)
class Layer:
    """One operation; compared by identity.

    Attributes:
        kind: module name in `network/layers/`.
        params: frozen dataclass of that kind.
        inputs: own inputs, then the operands of the epilogue.
        origin: where it came from, e.g. `ONNX node 41 Conv` or `deploy.prototxt:37`.
    """

    kind: str
    name: str
    params: Any
    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    epilogue: Epilogue | None = None
    origin: str = ""

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def __repr__(self) -> str:
        """Short, for messages and debuggers."""
        return f"<layer '{self.name}' {self.kind}>"

    @property
    def own_inputs(self) -> list[Tensor]:
        """Inputs without the operands of the epilogue."""
        operands = self.epilogue.num_operands if self.epilogue else 0
        return self.inputs[: len(self.inputs) - operands]

    @property
    def operands(self) -> list[Tensor]:
        """Operands of the epilogue."""
        return self.inputs[len(self.own_inputs) :]


class Network(WindowMethods, ComputeMethods, IndexMethods, RecurrentMethods, ShapeMethods):
    """Layers in a topological order, network inputs and marked outputs.

    `aliases`: names of tensors that rewrites replaced, and what holds their values now.
    `origin`: the files that it came from, None when a program made it.
    """

    def __init__(self, name: str = "network") -> None:
        """Make an empty network; its `name` becomes the plan's."""
        self.name = name
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.layers: list[Layer] = []
        self.aliases: dict[str, Tensor] = {}
        self.origin: NetworkOrigin | None = None
        self._names: set[str] = set()

    # --- tensors -------------------------------------------------------------------------

    def unique_name(self, wanted: str) -> str:
        """`wanted`, or `wanted.2`, `wanted.3` ... when it is taken; the result is reserved."""
        name, number = wanted or "unnamed", 2
        while name in self._names:
            name, number = f"{wanted}.{number}", number + 1
        self._names.add(name)
        return name

    def add_input(
        self, name: str, shape: Sequence[int], dtype: DataType = DataType.FLOAT32
    ) -> Tensor:
        """Declare a network input. Raises NetworkError for a bad shape or a name in use.

        Args:
            name: of the tensor.
            shape: batch included.
            dtype: element type.
        """
        if name in self._names:
            raise NetworkError(f"input '{name}': the name is already in use; choose another")
        tensor = Tensor(self.unique_name(name), checked_type(name, shape, dtype))
        self.inputs.append(tensor)
        return tensor

    def add_constant(self, values: Array, name: str = "constant") -> Tensor:
        """A tensor whose values are known now. The array is copied and must not be complex.

        Args:
            values: of any element type but complex.
            name: of the tensor; made unique.
        """
        array = np.ascontiguousarray(values)
        if array.shape != np.shape(values):  # ascontiguousarray makes rank 0 rank 1
            array = array.reshape(np.shape(values))
        dtype = DTYPE_OF_NUMPY.get(array.dtype.name)
        if dtype is None:
            raise NetworkError(f"constant '{name}': numpy type {array.dtype} has no tensor type")
        array = array.copy()
        array.flags.writeable = False
        return Tensor(self.unique_name(name), TensorType(array.shape, dtype), values=array)

    def mark_output(self, tensor: Tensor, name: str | None = None) -> None:
        """Make a tensor a network output, optionally under another name.

        Args:
            tensor: of this network, not marked yet.
            name: of the output; None: the tensor's.
        """
        if name is not None and name != tensor.name:
            if name in self._names:
                raise NetworkError(f"output '{name}': the name is already in use; choose another")
            self._names.add(name)
            tensor.name = name
        if tensor in self.outputs:
            raise NetworkError(f"output '{tensor.name}' is marked twice")
        self.outputs.append(tensor)

    # --- layers --------------------------------------------------------------------------

    def add_layer(
        self,
        kind: str,
        params: Any,
        inputs: Sequence[Tensor],
        name: str = "",
        *,
        epilogue: Epilogue | None = None,
        output_names: Sequence[str] = (),
        origin: str = "",
    ) -> Layer:
        """Append a layer; infer its output types by the definition of its kind.

        Args:
            kind: module name in `network/layers/`.
            params: instance of that definition's `params_type`.
            inputs: own inputs, then the operands of the epilogue.
            name: layer name; made unique.
            epilogue: optional fused expression.
            output_names: wanted tensor names; default is the layer's name.
            origin: where the layer came from, for messages.

        Raises:
            NetworkError: unknown kind, wrong params type, or inputs that break the rules.
        """
        definition = kinds.definition(kind)
        if not isinstance(params, definition.params_type):
            raise NetworkError(
                f"layer '{name}': {kind} takes {definition.params_type.__name__}, "
                f"not {type(params).__name__}"
            )
        layer_name = self.unique_name(name or kind)
        layer = Layer(kind, layer_name, params, list(inputs), [], epilogue, origin)
        for number, output_type in enumerate(self.inferred_types(layer)):
            wanted = output_names[number] if number < len(output_names) else layer_name
            same = not output_names and number == 0 and wanted == layer_name
            tensor_name = layer_name if same else self.unique_name(wanted)
            layer.outputs.append(Tensor(tensor_name, output_type, producer=layer))
        self.layers.append(layer)
        return layer

    def add_plugin(
        self,
        plugin: Plugin,
        inputs: Sequence[Tensor | Array],
        name: str = "",
        *,
        output_names: Sequence[str] = (),
        origin: str = "",
    ) -> Layer:
        """Append a layer of your own (docs/plugins.md); arrays become constants.

        Args:
            plugin: the layer.
            inputs: tensors and arrays in the plugin's order.
            name: of the layer; made unique.
            output_names: wanted tensor names; default is the layer's name.
            origin: where it came from, for messages.

        Raises:
            NetworkError: inputs that the plugin does not take.
            PluginError: the plugin itself breaks the rules.
        """
        from builder_host.network.layers.plugin import plugin_params

        params = plugin_params(plugin)
        tensors = [
            x if isinstance(x, Tensor) else self.add_constant(x, f"{name or plugin.name}.{i}")
            for i, x in enumerate(inputs)
        ]
        return self.add_layer(
            "plugin",
            params,
            tensors,
            name or plugin.name,
            output_names=output_names,
            origin=origin or f"plugin {plugin.name}",
        )

    def inferred_types(self, layer: Layer) -> list[TensorType]:
        """Output types by the rules of the layer's kind and of its epilogue.

        Raises:
            NetworkError: the inputs break a rule; names the layer and its origin.
        """
        definition = kinds.definition(layer.kind)
        where = f"layer '{layer.name}'" + (f" ({layer.origin})" if layer.origin else "")
        try:
            types = definition.infer(layer.params, [t.type for t in layer.own_inputs])
            for tensor in layer.operands:
                require_broadcastable_to(
                    tensor.shape, types[0].shape, f"epilogue operand '{tensor.name}'"
                )
        except (NetworkError, ValueError) as error:
            raise NetworkError(f"{where}: {layer.kind}: {error}") from error
        if layer.epilogue is not None and layer.outputs:
            stored = layer.outputs[0].dtype
            is_quantised = layer.inputs[0].dtype in EIGHT_BITS
            if stored in EIGHT_BITS or (is_quantised and stored.is_float):
                types[0] = TensorType(types[0].shape, stored)
        return [checked_type(layer.name, t.shape, t.dtype) for t in types]

    def names_of(self, tensor: Tensor) -> list[str]:
        """Names under which a tensor's values are known, the best first.

        Passes let one tensor carry the values of a later one (a convolution those of the
        activation behind it); the name of the tensor that is gone then says what is stored.
        """
        taken_over = [name for name, holder in self.aliases.items() if holder is tensor]
        return list(dict.fromkeys([*reversed(taken_over), tensor.name]))

    def consumers(self) -> dict[Tensor, list[Layer]]:
        """For each tensor the layers that read it, in order; made anew at each call."""
        readers: dict[Tensor, list[Layer]] = {}
        for layer in self.layers:
            for tensor in dict.fromkeys(layer.inputs):
                readers.setdefault(tensor, []).append(layer)
        return readers

    def readers_of(self, tensor: Tensor) -> list[Layer]:
        """The layers that read one tensor, in order; cheaper than `consumers` for one answer."""
        return [layer for layer in self.layers if tensor in layer.inputs]

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor once: inputs, then constants and outputs of layers in order."""
        seen: set[int] = set()
        for tensor in [*self.inputs, *(t for y in self.layers for t in [*y.inputs, *y.outputs])]:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def checked_type(name: str, shape: Sequence[int], dtype: DataType) -> TensorType:
    """A TensorType after checking rank and extents. Raises NetworkError."""
    if len(shape) > MAX_RANK:
        raise NetworkError(f"tensor '{name}': rank {len(shape)} is over the limit of {MAX_RANK}")
    if any(int(d) < 0 for d in shape):
        raise NetworkError(
            f"tensor '{name}': shape {tuple(shape)} has a dimension that is not known; "
            "state it with --shapes"
        )
    return TensorType(tuple(int(d) for d in shape), dtype)

"""INetworkDefinition: layers recorded as they are added, emitted when the network is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from builder_host.errors import NetworkError
from builder_host.expressions import Input
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.network import Network, Tensor
from builder_host.network.tensor_type import TensorType
from builder_host.tensorrt.add_compute import ComputeMethods
from builder_host.tensorrt.add_flow import FlowMethods
from builder_host.tensorrt.add_indexing import IndexMethods
from builder_host.tensorrt.add_movement import MovementMethods
from builder_host.tensorrt.control_flow import ILoop
from builder_host.tensorrt.emission import Emission, FoldingNetwork, Found
from builder_host.tensorrt.imported import ImportedModel, Shapes
from builder_host.tensorrt.layers.base import ILayer
from builder_host.tensorrt.recorder import LayerKind
from builder_host.tensorrt.refused import NETWORK, TENSOR
from runtime_edge.tensorrt.refused import Refusing
from runtime_edge.tensorrt.types import (
    PLAN_TYPES,
    DataType,
    Dims,
    TensorLocation,
    checked_type,
    of_plan,
)

_CONVERTIBLE = (
    {DataType.FLOAT, DataType.HALF, DataType.BF16},
    {DataType.INT32, DataType.INT64},
)


class ITensor(Refusing):
    """A tensor of a network under construction; its shape follows from what stands before it."""

    refused = TENSOR

    def __init__(self, network: INetworkDefinition, name: str) -> None:
        """See `INetworkDefinition`."""
        self._network = network
        self._name = name
        self.dynamic_range: tuple[float, float] | None = None
        self._dimension_names: dict[int, str] = {}

    @property
    def name(self) -> str:
        """Name; may be changed until the network is built."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._network._rename(self, name)
        self._name = name

    @property
    def shape(self) -> Dims:
        """Dimensions, without the batch where that is implicit; those of inputs may be set.

        Open dimensions of inputs are -1, and count as 1 in the shapes behind them.
        """
        declared = self._network._declared_shape(self)
        if declared is not None:
            return Dims(declared)
        shape = self._network._built(self).shape
        return Dims(shape[1:] if self._network.has_implicit_batch_dimension else shape)

    @shape.setter
    def shape(self, shape: Sequence[int]) -> None:
        self._network._reshape_input(self, tuple(shape))

    @property
    def dtype(self) -> DataType:
        """Element type; that of declared inputs may be set."""
        wanted = self._network.output_type(self)
        return wanted or of_plan(self._network._built(self).dtype)

    @dtype.setter
    def dtype(self, dtype: DataType) -> None:
        self._network._retype_input(self, dtype)

    location = TensorLocation.DEVICE
    is_execution_tensor = True

    @property
    def is_shape_tensor(self) -> bool:
        """Whether its values are known while building, as those of add_shape are."""
        return self._network._built(self).is_constant

    @property
    def plan_type(self) -> TensorType:
        """Shape and element type as edgeplan's own API has them, with the batch."""
        return self._network._built(self).type

    @property
    def is_network_input(self) -> bool:
        """Whether it is an input of the network."""
        return self in self._network._inputs

    @property
    def is_network_output(self) -> bool:
        """Whether it is marked as an output."""
        return self in self._network._outputs

    def set_dynamic_range(self, min: float, max: float) -> bool:
        """The range for int8; symmetric ranges take the larger magnitude."""
        self.dynamic_range = (min, max)
        return True

    def reset_dynamic_range(self) -> None:
        """Without a range."""
        self.dynamic_range = None

    def set_dimension_name(self, index: int, name: str) -> None:
        """A name for people to read."""
        self._dimension_names[index] = name

    def get_dimension_name(self, index: int) -> str | None:
        """The name that was set."""
        return self._dimension_names.get(index)


class INetworkDefinition(Refusing, ComputeMethods, MovementMethods, IndexMethods, FlowMethods):
    """A network; see TensorRT's documentation for the methods, `builder_host.network` for layers.

    Attributes:
        has_implicit_batch_dimension: dimensions leave out the batch, which `batch` gives.
    """

    refused = NETWORK

    def __init__(
        self, *, is_explicit: bool, batch: Callable[[], int | None], flags: int = 0
    ) -> None:
        """`batch` gives the builder's max_batch_size, None while that is not set."""
        self._is_explicit = is_explicit
        self._batch = batch
        self.flags = flags
        self._inputs: list[ITensor] = []
        self._types: dict[ITensor, tuple[DataType, tuple[int, ...]]] = {}
        self._outputs: list[ITensor] = []
        self._layers: list[ILayer] = []
        self._loops: list[ILoop] = []
        self.imported_model: ImportedModel | None = None
        self._imported: dict[str, ITensor] = {}
        self._imported_shapes: dict[str, tuple[int, ...]] = {}
        self._producers: dict[ITensor, int] = {}
        self._draft: _Draft | None = None
        self.name = "network"
        self.error_recorder: Any = None

    @property
    def has_implicit_batch_dimension(self) -> bool:
        """Whether shapes leave out the batch: no EXPLICIT_BATCH flag, and a max_batch_size."""
        return not self._is_explicit and self._batch() is not None

    @property
    def num_layers(self) -> int:
        """Layers that were added."""
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        """Inputs."""
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        """Marked outputs."""
        return len(self._outputs)

    def get_flag(self, flag: int) -> bool:
        """Whether `create_network` was given a flag."""
        return bool(self.flags >> int(flag) & 1)

    def get_layer(self, index: int) -> ILayer:
        """A layer by its number."""
        return self._layers[index]

    def get_input(self, index: int) -> ITensor:
        """An input by its number."""
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        """A marked output by its number."""
        return self._outputs[index]

    def __len__(self) -> int:
        """Number of layers."""
        return len(self._layers)

    def __getitem__(self, index: int) -> ILayer:
        """A layer by its number."""
        return self._layers[index]

    def __iter__(self) -> Iterator[ILayer]:
        """The layers."""
        return iter(self._layers)

    def __enter__(self) -> INetworkDefinition:
        """The network itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to release."""

    # --- inputs, outputs, layers ----------------------------------------------------------

    def add_input(self, name: str, dtype: DataType, shape: Sequence[int]) -> ITensor:
        """Declare an input. Raises TypeError when `dtype` is no DataType."""
        checked_type(dtype, f"input '{name}': dtype")
        tensor = ITensor(self, name)
        self._inputs.append(tensor)
        self._types[tensor] = (dtype, tuple(shape))
        self._draft = None
        return tensor

    def mark_output(self, tensor: ITensor) -> None:
        """Make a tensor an output."""
        self._outputs.append(tensor)

    mark_output_for_shapes = mark_output

    def unmark_output(self, tensor: ITensor) -> None:
        """Take that back."""
        self._outputs.remove(tensor)

    unmark_output_for_shapes = unmark_output

    def remove_tensor(self, tensor: ITensor) -> None:
        """Forget a declared input that nothing reads."""
        if tensor in self._types:
            self._inputs.remove(tensor)
            del self._types[tensor]
            self._draft = None

    def add_kind(
        self,
        kind: type[LayerKind],
        inputs: Sequence[ITensor | None],
        num_outputs: int = 1,
        /,
        **values: Any,
    ) -> LayerKind:
        """Record a layer of a kind; the `add_*` methods are this.

        Args:
            kind: its class.
            inputs: what it reads.
            num_outputs: tensors that it gives.
            values: attributes of its class.
        """
        number = len(self._layers)
        title = kind.__name__.removeprefix("I").removesuffix("Layer")
        layer = kind(inputs=list(inputs), name=f"(Unnamed Layer* {number}) [{title}]", **values)
        layer.outputs = [
            ITensor(self, f"{layer.name}_output_{index}") for index in range(num_outputs)
        ]
        self._producers.update(dict.fromkeys(layer.outputs, number))
        self._layers.append(layer)
        return layer

    # --- what parsers use -----------------------------------------------------------------

    def take_import(self, imported: ImportedModel, open_shapes: Shapes | None = None) -> Network:
        """Begin with an imported model.

        Args:
            imported: the model.
            open_shapes: of inputs with open dimensions, which are -1 there.

        Raises:
            NetworkError: the network has content already.
        """
        if self.imported_model is not None or self._layers or self._inputs:
            raise NetworkError("parse a model into an empty network, and only one")
        given = open_shapes or {}
        batch = self._batch() if self.has_implicit_batch_dimension else None
        network = imported(batch, {name: closed_shape(shape) for name, shape in given.items()})
        self.imported_model = imported
        self._inputs = [self.imported_tensor(tensor.name) for tensor in network.inputs]
        self._imported_shapes.update(given)
        self.name = network.name
        return network

    def import_again(self, batch: int | None = None, shapes: Shapes | None = None) -> Network:
        """The network of the model that was parsed. Raises BuilderError."""
        assert self.imported_model is not None  # callers look whether a model was parsed
        own = {name: closed_shape(shape) for name, shape in self._imported_shapes.items()}
        return self.imported_model(batch, {**own, **(shapes or {})})

    def imported_tensor(self, name: str) -> ITensor:
        """The handle of an imported tensor."""
        if name not in self._imported:
            self._imported[name] = ITensor(self, name)
            self._draft = None
        return self._imported[name]

    # --- building ---------------------------------------------------------------------------

    def emit(self, batch: int | None, shapes: Shapes | None = None) -> tuple[Network, Found]:
        """The network, and its tensors by handle.

        Args:
            batch: rows where the batch is implicit, else None.
            shapes: of inputs with open dimensions; those that are not named are 1 there.

        Raises:
            NetworkError: a layer's inputs break its rules.
        """
        emission = self._begin(batch, shapes or {})
        emission.add(self._layers, self._loops)
        net, found = emission.net, emission.found
        for handle in self._outputs:
            if handle not in found:
                raise NetworkError(
                    f"output '{handle.name}' is no tensor of this network, or inside a loop: pass "
                    "it out with add_loop_output"
                )
            tensor = found[handle]
            wanted = self.output_type(handle)
            if wanted is not None and tensor.dtype is not PLAN_TYPES[wanted]:
                net.free_name(tensor, handle.name)
                tensor = net.add_cast(tensor, PLAN_TYPES[wanted], name=handle.name).output
            if tensor in net.inputs or tensor.is_constant or tensor in net.outputs:
                params = PointwiseParams(Input(0))  # folding would make it a constant again
                tensor = Network.add_layer(net, "pointwise", params, [tensor], "output").output
            net.mark_output(tensor, handle.name if handle.name != tensor.name else None)
            found[handle] = tensor
        return net, found

    def output_type(self, tensor: ITensor) -> DataType | None:
        """The element type that `set_output_type` gave an output of the network, if it can.

        Floating-point results are rounded to another floating-point type, integers to another
        integer type; None for other wishes, and for tensors inside the network.
        """
        number = self._producers.get(tensor)
        if number is None or tensor not in self._outputs:
            return None
        layer = self._layers[number]
        wanted = layer.output_types.get(layer.outputs.index(tensor))
        if wanted is None or layer.obeys_output_type:
            return None
        own = of_plan(self._built(tensor).dtype)
        return wanted if any({own, wanted} <= kinds for kinds in _CONVERTIBLE) else None

    def _begin(self, batch: int | None, shapes: Shapes, *, is_draft: bool = False) -> Emission:
        """A network with the inputs and the imported layers."""
        net = FoldingNetwork(self.name)
        found: Found = {}
        if self.imported_model is not None:
            imported = self.import_again(batch, shapes)
            by_name = {tensor.name: tensor for tensor in imported.tensors()}
            for name, handle in self._imported.items():
                if name not in by_name:
                    raise NetworkError(f"the imported model has no tensor '{name}'")
                found[handle] = by_name[name]
            net.take_over(imported)
        for handle, (dtype, shape) in self._types.items():
            closed = shapes.get(handle.name) or closed_shape(shape)
            full = (batch, *closed) if batch is not None else closed
            found[handle] = net.add_input(handle.name, full, PLAN_TYPES[dtype])
        return Emission(net, found, int(batch is not None), is_draft=is_draft)

    def _rename(self, tensor: ITensor, name: str) -> None:
        if self.imported_model is not None and tensor in self._imported.values():
            raise NetworkError(f"'{tensor.name}' was imported; it keeps its name")
        taken = {other.name for other in (*self._inputs, *self._outputs) if other is not tensor}
        if name in taken:
            raise NetworkError(f"the name '{name}' is in use")
        self._draft = None

    def _declared_shape(self, tensor: ITensor) -> tuple[int, ...] | None:
        if tensor in self._types:
            return self._types[tensor][1]
        return self._imported_shapes.get(tensor.name) if tensor in self._inputs else None

    def _reshape_input(self, tensor: ITensor, shape: tuple[int, ...]) -> None:
        if tensor in self._types:
            self._types[tensor] = (self._types[tensor][0], shape)
        elif tensor in self._inputs:
            self._imported_shapes[tensor.name] = shape
        else:
            raise NetworkError(f"'{tensor.name}': only shapes of inputs can be set")
        self._draft = None

    def _retype_input(self, tensor: ITensor, dtype: DataType) -> None:
        checked_type(dtype, f"'{tensor.name}': dtype")
        if tensor in self._types:
            self._types[tensor] = (dtype, self._types[tensor][1])
            self._draft = None
        elif dtype is not tensor.dtype:
            raise NetworkError(
                f"'{tensor.name}' is {tensor.dtype.name}: only the types of declared inputs can be "
                f"set to {dtype.name}; use add_cast"
            )

    def _built(self, tensor: ITensor) -> Tensor:
        """A tensor of a draft, which grows by the layers that were added since."""
        batch = self._batch() if self.has_implicit_batch_dimension else None
        draft, self._draft = self._draft, None
        # Bodies of loops may have grown since.
        if draft is None or self._loops or not draft.holds(batch):
            draft = _Draft(batch, self._begin(batch, {}, is_draft=True))
        draft.extend(self._needed(tensor, draft), self._loops)
        self._draft = draft
        if tensor not in draft.emission.found:
            raise NetworkError(f"'{tensor.name}' belongs to another network")
        return draft.emission.found[tensor]

    def _needed(self, tensor: ITensor, draft: _Draft) -> list[ILayer]:
        """Layers that a draft lacks for a tensor, in order; others may not be complete as yet."""
        place = self._producers.get(tensor, -1)
        waiting = [place]
        if self._loops:
            boundaries = {layer for loop in self._loops for layer in loop.boundaries}
            waiting += range(place)
            waiting += [i for i, layer in enumerate(self._layers) if layer in boundaries]
        found: set[int] = set()
        while waiting:
            number = waiting.pop()
            if number < 0 or number in found or self._layers[number] in draft.changes:
                continue
            found.add(number)
            inputs = self._layers[number].inputs
            waiting += [self._producers.get(y, -1) for y in inputs if y is not None]
        return [self._layers[number] for number in sorted(found)]


class _Draft:
    """A network that is made for its shapes, and the state of the layers that are in it."""

    def __init__(self, batch: int | None, emission: Emission) -> None:
        self.batch = batch
        self.emission = emission
        self.changes: dict[ILayer, int] = {}

    def holds(self, batch: int | None) -> bool:
        """Whether nothing changed that is in it."""
        is_same = all(layer.changes == count for layer, count in self.changes.items())
        return self.batch == batch and is_same

    def extend(self, layers: Sequence[ILayer], loops: Sequence[ILoop]) -> None:
        """Add layers."""
        self.emission.add(layers, loops)
        self.changes.update((layer, layer.changes) for layer in layers)


def closed_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape whose open dimensions are 1."""
    return tuple(1 if extent < 0 else extent for extent in shape)


def dynamic_ranges(found: Found) -> dict[str, float]:
    """Ranges that were set, by the names of the built tensors."""
    return {
        tensor.name: float(np.abs(handle.dynamic_range).max())
        for handle, tensor in found.items()
        if handle.dynamic_range is not None
    }

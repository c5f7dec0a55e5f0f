"""From recorded layers to an edgeplan network: order, loops, shape arithmetic."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from builder_host.errors import NetworkError
from builder_host.importers.onnx.control_flow import MAX_ITERATIONS
from builder_host.importers.onnx.folding import fold_layer
from builder_host.network.network import Epilogue, Layer, Network, Tensor
from builder_host.network.rules import EIGHT_BITS
from builder_host.tensorrt import layers as kinds
from builder_host.tensorrt.control_flow import ILoop, body_of
from builder_host.tensorrt.enums import LoopOutput, TripLimit
from builder_host.tensorrt.layers.base import ILayer

if TYPE_CHECKING:
    from builder_host.tensorrt.network import ITensor

Found = dict["ITensor", Tensor]

_MAX_UNROLLED_LAYERS = 50_000  # of all loops, those inside others too


class FoldingNetwork(Network):
    """A network whose layers on known values become known values: shape arithmetic disappears.

    Layers that read 8-bit constants stay: they are quantised weights, which kernels want as they
    are.
    """

    def __init__(self, name: str = "network") -> None:
        """Make an empty network."""
        super().__init__(name)
        self._numbers: dict[str, int] = {}  # where the search for a free name goes on

    def unique_name(self, wanted: str) -> str:
        """As `Network.unique_name`, quickly where loops ask for one name many times."""
        wanted = wanted or "unnamed"
        name, number = wanted, self._numbers.get(wanted, 2)
        while name in self._names:
            name, number = f"{wanted}.{number}", number + 1
        self._numbers[wanted] = number
        self._names.add(name)
        return name

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
        """As `Network.add_layer`; of known inputs the result is known and the layer is gone."""
        layer = super().add_layer(
            kind, params, inputs, name, epilogue=epilogue, output_names=output_names, origin=origin
        )
        known = [tensor.values for tensor in inputs if tensor.values is not None]
        has_bytes = any(tensor.dtype in EIGHT_BITS for tensor in inputs)
        if not inputs or len(known) < len(inputs) or has_bytes or epilogue or kind == "plugin":
            return layer
        for tensor, values in zip(layer.outputs, fold_layer(kind, params, known), strict=True):
            values.flags.writeable = False
            tensor.values, tensor.producer = values, None
        self.layers.pop()
        return layer

    def free_name(self, tensor: Tensor, name: str) -> None:
        """Call a tensor otherwise if it has a name that another one shall have."""
        if tensor.name == name:
            tensor.name = self.unique_name(f"{name}.inner")
            self._names.discard(name)

    def take_over(self, other: Network) -> None:
        """Have the inputs and layers of another network, which is given up; this one is empty."""
        self.inputs, self.layers = other.inputs, other.layers
        self.aliases, self._names = other.aliases, other._names


class Emission:
    """Layers on their way into a network.

    Attributes:
        net: receives them.
        found: its tensors by the handles of those that were recorded.
        shift: see `ILayer.emit`.
        is_draft: loops may be incomplete; their bodies are then emitted once, for the shapes.
    """

    def __init__(
        self, net: FoldingNetwork, found: Found, shift: int, *, is_draft: bool = False
    ) -> None:
        """Begin with the inputs in `found`."""
        self.net = net
        self.found = found
        self.shift = shift
        self.is_draft = is_draft
        self._num_unrolled = 0

    def add(self, layers: Sequence[ILayer], loops: Sequence[ILoop]) -> None:
        """Emit layers after what they read.

        Args:
            layers: in the order in which they were added, as far as their inputs allow.
            loops: those that have layers among them.

        Raises:
            NetworkError: a layer's inputs break its rules, or depend on the layer.
        """
        present = set(layers)
        bodies = {loop: body_of(loop, layers) & present for loop in loops}

        def inside(members: set[ILayer], outer: ILoop) -> list[ILoop]:
            return [y for y in loops if y is not outer and not members.isdisjoint(y.boundaries)]

        nested = {inner for outer in loops for inner in inside(bodies[outer], outer)}
        unit_of: dict[ILayer, int] = {layer: index for index, layer in enumerate(layers)}
        groups: dict[int, tuple[ILoop, set[ILayer]]] = {}
        for loop in loops:
            if loop in nested or not bodies[loop]:  # a draft may end before a loop begins
                continue
            members = bodies[loop].union(*(bodies[y] for y in inside(bodies[loop], loop)))
            first = min(unit_of[layer] for layer in members)
            groups[first] = (loop, members)
            unit_of.update(dict.fromkeys(members, first))
        for unit in self._ordered(layers, unit_of):
            if unit in groups:
                loop, members = groups[unit]
                body = [layer for layer in layers if layer in members]
                self._unroll(loop, body, inside(members, loop))
            else:
                self._emit(layers[unit])

    def _ordered(self, layers: Sequence[ILayer], unit_of: dict[ILayer, int]) -> Iterable[int]:
        """Units after the units whose outputs they read, else in the order of the layers."""
        made_by = {tensor: layer for layer in layers for tensor in layer.outputs}
        needs: dict[int, set[int]] = {unit: set() for unit in unit_of.values()}
        for layer in layers:
            unit = unit_of[layer]
            for tensor in layer.inputs:
                producer = made_by.get(tensor) if tensor is not None else None
                if producer is None or unit_of[producer] == unit:
                    continue
                needs[unit].add(unit_of[producer])
        readers: dict[int, list[int]] = {}
        for unit, others in needs.items():
            for other in others:
                readers.setdefault(other, []).append(unit)
        left = {unit: len(others) for unit, others in needs.items()}
        ready = [unit for unit, count in left.items() if not count]
        heapq.heapify(ready)
        num_done = 0
        while ready:
            unit = heapq.heappop(ready)
            num_done += 1
            yield unit
            for reader in readers.get(unit, ()):
                left[reader] -= 1
                if not left[reader]:
                    heapq.heappush(ready, reader)
        if num_done < len(needs):
            stuck = next(layer for layer in layers if left[unit_of[layer]])
            raise NetworkError(f"'{stuck.name}' depends on its own output")

    def _emit(self, layer: ILayer) -> None:
        xs: list[Tensor | None] = []
        for tensor in layer.inputs:
            if tensor is not None and tensor not in self.found:
                raise NetworkError(
                    f"'{layer.name}' reads '{tensor.name}', which is no tensor of this network"
                )
            xs.append(None if tensor is None else self.found[tensor])
        outputs = layer.emit(self.net, xs, self.shift)
        # A plan's layers may have fewer outputs than the API names: an RNN without cells.
        for handle, made in zip(layer.outputs, outputs, strict=False):
            self.found[handle] = made

    # --- loops -----------------------------------------------------------------------------

    def _unroll(self, loop: ILoop, layers: list[ILayer], inner: list[ILoop]) -> None:
        own = [layer for layer in layers if layer in loop.boundaries]
        recurrences = [y for y in own if isinstance(y, kinds.IRecurrenceLayer)]
        iterators = [y for y in own if isinstance(y, kinds.IIteratorLayer)]
        outputs = [y for y in own if isinstance(y, kinds.ILoopOutputLayer)]
        limits = [y for y in own if isinstance(y, kinds.ITripLimitLayer)]
        is_whole = bool(limits) and all(len(y.inputs) > 1 for y in recurrences)
        if not is_whole and not self.is_draft:
            raise NetworkError(
                f"'{loop.name}': a loop needs add_trip_limit, and set_input(1, next value) for "
                "each recurrence"
            )
        body = [layer for layer in layers if layer not in own]
        count = self._count(loop, limits)
        state = [self._tensor(y.inputs[0], loop) for y in recurrences]
        sources = [self._tensor(y.inputs[0], loop) for y in iterators]
        kept: dict[kinds.ILoopOutputLayer, list[Tensor]] = {y: [] for y in outputs}
        for number in range(MAX_ITERATIONS + 1):
            is_counted = number < count
            if not is_counted and not (self.is_draft and number == 0):
                break
            for recurrence, value in zip(recurrences, state, strict=True):
                self.found[recurrence.outputs[0]] = value
            for iterator, source in zip(iterators, sources, strict=True):
                self.found[iterator.outputs[0]] = self._item(iterator, source, number)
            self._num_unrolled += len(body)
            if self._num_unrolled > _MAX_UNROLLED_LAYERS:
                raise NetworkError(
                    f"'{loop.name}': loops unroll to more than {_MAX_UNROLLED_LAYERS:,} layers; "
                    "iterate outside of the network"
                )
            self.add(body, inner)
            if is_whole and is_counted and not self._goes_on(loop, limits):
                break
            for output in outputs:
                if output.kind is not LoopOutput.LAST_VALUE:
                    kept[output].append(self._tensor(output.inputs[0], loop))
            if not is_whole or not is_counted:
                break
            state = [self._tensor(y.inputs[1], loop) for y in recurrences]
        else:
            raise NetworkError(f"'{loop.name}' is longer than {MAX_ITERATIONS:,} iterations")
        last = {y.outputs[0]: value for y, value in zip(recurrences, state, strict=True)}
        results = {y.outputs[0]: self._result(y, last, kept[y]) for y in outputs}
        if not self.is_draft:
            for layer in layers:
                for handle in layer.outputs:
                    self.found.pop(handle, None)
        self.found.update(results)

    def _count(self, loop: ILoop, limits: list[kinds.ITripLimitLayer]) -> int:
        """Iterations by the counting limit; more than any loop may have where there is none."""
        counts = [self._known(y, loop) for y in limits if y.kind is TripLimit.COUNT]
        return min(counts, default=MAX_ITERATIONS + 1)

    def _goes_on(self, loop: ILoop, limits: list[kinds.ITripLimitLayer]) -> bool:
        return all(self._known(y, loop) for y in limits if y.kind is TripLimit.WHILE)

    def _known(self, limit: kinds.ITripLimitLayer, loop: ILoop) -> int:
        tensor = self._tensor(limit.inputs[0], loop)
        if tensor.values is None or tensor.values.size != 1:
            raise NetworkError(
                f"'{loop.name}': its {limit.kind.name} limit '{tensor.name}' {tensor.type} is not "
                "one value known while building; a plan has a fixed number of steps"
            )
        return int(tensor.values.ravel()[0])

    def _tensor(self, handle: ITensor | None, loop: ILoop) -> Tensor:
        if handle is None or handle not in self.found:
            name = "" if handle is None else f" '{handle.name}'"
            raise NetworkError(f"'{loop.name}': a tensor{name} that it needs is not there")
        return self.found[handle]

    def _item(self, iterator: kinds.IIteratorLayer, source: Tensor, number: int) -> Tensor:
        """One slice, without the dimension that it is one of."""
        axis = iterator.axis + self.shift
        if not 0 <= axis < source.type.rank or number >= source.shape[axis]:
            raise NetworkError(
                f"'{iterator.name}': iteration {number} has no slice along axis {iterator.axis} of "
                f"{source.type}"
            )
        starts, sizes = [0] * source.type.rank, list(source.shape)
        starts[axis] = source.shape[axis] - 1 - number if iterator.reverse else number
        sizes[axis] = 1
        part = self.net.add_slice(source, starts, sizes, name=iterator.name).output
        shape = (*source.shape[:axis], *source.shape[axis + 1 :])
        return self.net.add_reshape(part, shape, name=f"{iterator.name}.shape").output

    def _result(
        self, output: kinds.ILoopOutputLayer, last: dict[ITensor, Tensor], kept: list[Tensor]
    ) -> Tensor:
        if output.kind is LoopOutput.LAST_VALUE:
            handle = output.inputs[0]
            if handle is None or handle not in last:
                raise NetworkError(f"'{output.name}': LAST_VALUE takes the output of a recurrence")
            return last[handle]
        if not kept:
            raise NetworkError(f"'{output.name}': the loop has no iteration to take values from")
        axis = output.axis + self.shift
        wide = [
            self.net.add_reshape(
                t, (*t.shape[:axis], 1, *t.shape[axis:]), name=f"{output.name}.row"
            ).output
            for t in (kept[::-1] if output.kind is LoopOutput.REVERSE else kept)
        ]
        return self.net.add_concatenation(wide, axis, name=output.name).output

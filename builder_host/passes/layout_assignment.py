"""Layout assignment: x (LINEAR) -> x (blocked) where that is cheaper, reformats included.

Every layer chooses one format for the rank-4 tensors that it reads and one for those that it
writes; a tensor that is read in another format than it was written in costs a reformat. The total
is lowered by local moves: one layer at a time, then whole groups of layers that can do both.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from builder_host.errors import UnsupportedError
from builder_host.kernels.choice import FamilyChoice
from builder_host.layouts import Layout, dense_layout
from builder_host.lowering.problems import layer_problem, split_epilogue
from builder_host.network.layers.reformat import ReformatParams
from builder_host.network.network import Layer, Network, Tensor
from planformat.datatypes import TensorFormat

_LINEAR = TensorFormat.LINEAR
_MAX_SWEEPS = 20
_UNKNOWN_GBPS = 20.0  # assumed where the target does not tell
_STEP_US = 1.0  # fixed cost of one more step


@dataclass(frozen=True, slots=True)
class _Config:
    reads: TensorFormat
    writes: TensorFormat


class _Assignment:
    def __init__(self, network: Network, choice: FamilyChoice, num_workers: int) -> None:
        self.network = network
        self.choice = choice
        self.num_workers = num_workers
        self.blocked = choice.target.blocked_format
        self.consumers = network.consumers()
        self.outputs = set(network.outputs)
        self.costs: dict[Layer, dict[_Config, float]] = {}
        for layer in network.layers:
            self.costs[layer] = self._configs(layer)
        self.current = {layer: self._preferred(layer) for layer in network.layers}

    # --- cost of one layer -----------------------------------------------------------------

    def _configs(self, layer: Layer) -> dict[_Config, float]:
        reads = [_LINEAR]
        if any(_is_image(t) for t in layer.own_inputs):
            reads.append(self.blocked)
        writes = [_LINEAR]
        if all(t.type.rank == 4 for t in layer.outputs):
            writes.append(self.blocked)
        configs = {
            _Config(r, w): self._cost(layer, _Config(r, w))
            for r, w in itertools.product(reads, writes)
        }
        return {config: cost for config, cost in configs.items() if cost != float("inf")}

    def _cost(self, layer: Layer, config: _Config) -> float:
        if is_free(layer, config.reads, config.writes):
            return 0.0
        own = set(layer.own_inputs)

        def layout_of(tensor: Tensor) -> Layout:
            fmt = config.reads if tensor in own else config.writes
            return dense_layout(tensor.type, fmt if tensor.type.rank == 4 else _LINEAR)

        math = self.choice.math_of(layer.name)
        problem = layer_problem(layer, layout_of, self.num_workers, math)
        return self.choice.cost_us(problem) + _STEP_US

    def _preferred(self, layer: Layer) -> _Config:
        if not self.costs[layer]:
            raise UnsupportedError(
                f"layer '{layer.name}' ({layer.origin or layer.kind}): no kernel family computes "
                f"{layer.kind} on {', '.join(str(t.type) for t in layer.inputs)} for this target"
            )
        blocked = self.blocked
        return min(
            self.costs[layer],
            key=lambda c: (-(c.reads is blocked) - (c.writes is blocked), self.costs[layer][c]),
        )

    # --- total cost ------------------------------------------------------------------------

    def _written(self, tensor: Tensor) -> TensorFormat:
        if tensor.producer is None or tensor.type.rank != 4:
            return _LINEAR
        return self.current[tensor.producer].writes

    def _read(self, tensor: Tensor, layer: Layer) -> TensorFormat:
        config = self.current[layer]
        return config.reads if tensor in layer.own_inputs else config.writes

    def needed(self, tensor: Tensor) -> list[TensorFormat]:
        """Formats in which a tensor is read, without the one in which it is written."""
        if not _is_image(tensor):
            return []
        formats = {self._read(tensor, layer) for layer in self.consumers.get(tensor, [])}
        if tensor in self.outputs:
            formats.add(_LINEAR)
        formats.discard(self._written(tensor))
        return sorted(formats, key=lambda fmt: fmt.value)

    def _tensor_cost(self, tensor: Tensor) -> float:
        needed = self.needed(tensor)
        if not needed:
            return 0.0
        bytes_moved = sum(
            dense_layout(tensor.type, fmt).stored_bytes for fmt in (_LINEAR, self.blocked)
        )
        gbps: float = self.choice.target.memory_gbps or _UNKNOWN_GBPS
        return (bytes_moved / (gbps * 1e3) + _STEP_US) * len(needed)

    def _local_cost(self, layers: list[Layer]) -> float:
        tensors = dict.fromkeys(t for layer in layers for t in [*layer.inputs, *layer.outputs])
        return sum(self.costs[y][self.current[y]] for y in layers) + sum(
            self._tensor_cost(t) for t in tensors if not t.is_constant
        )

    # --- moves -----------------------------------------------------------------------------

    def improve(self) -> None:
        """Apply moves until none lowers the cost."""
        for _ in range(_MAX_SWEEPS):
            changed = [self._improve_layer(layer) for layer in self.network.layers]
            changed += [self._improve_group(group) for group in self._groups()]
            if not any(changed):
                return

    def _improve_layer(self, layer: Layer) -> bool:
        start = self.current[layer]
        best, best_cost = start, self._local_cost([layer])
        for config in self.costs[layer]:
            self.current[layer] = config
            cost = self._local_cost([layer])
            if cost < best_cost - 1e-9:
                best, best_cost = config, cost
        self.current[layer] = best
        return best != start

    def _groups(self) -> list[list[Layer]]:
        both = {_Config(_LINEAR, _LINEAR), _Config(self.blocked, self.blocked)}
        flexible = {y for y in self.network.layers if both <= set(self.costs[y])}
        groups: list[list[Layer]] = []
        seen: set[Layer] = set()
        for layer in self.network.layers:
            if layer not in flexible or layer in seen:
                continue
            group, stack = [], [layer]
            seen.add(layer)
            while stack:
                one = stack.pop()
                group.append(one)
                near = [t.producer for t in one.inputs if t.producer]
                near += [y for t in one.outputs for y in self.consumers.get(t, [])]
                for other in near:
                    if other in flexible and other not in seen:
                        seen.add(other)
                        stack.append(other)
            groups.append(group)
        return groups

    def _improve_group(self, group: list[Layer]) -> bool:
        before = {layer: self.current[layer] for layer in group}
        best, best_cost = before, self._local_cost(group)
        for fmt in (_LINEAR, self.blocked):
            for layer in group:
                self.current[layer] = _Config(fmt, fmt)
            cost = self._local_cost(group)
            if cost < best_cost - 1e-9:
                best, best_cost = dict.fromkeys(group, _Config(fmt, fmt)), cost
        self.current.update(best)
        return best is not before


def _is_image(tensor: Tensor) -> bool:
    return not tensor.is_constant and tensor.type.rank == 4


def is_free(layer: Layer, reads: TensorFormat, writes: TensorFormat) -> bool:
    """Whether a layer needs no kernel in these formats: its tensors can share memory."""
    if reads is not writes:
        return False
    block = writes.channel_block
    if layer.kind == "reshape":
        return writes is _LINEAR
    if layer.kind == "concatenation":
        if block == 1 or layer.params.axis != 1:
            return True
        starts = itertools.accumulate(t.shape[1] for t in layer.inputs[:-1])
        return all(start % block == 0 for start in starts)
    if layer.kind == "slice" and all(s == 1 for s in layer.params.strides):
        return block == 1 or layer.params.starts[1] % block == 0
    return False


def run(network: Network, choice: FamilyChoice, num_workers: int) -> dict[Tensor, TensorFormat]:
    """Choose formats, insert reformat layers, and return the format of every computed tensor.

    A fused layer that no family can compute loses its epilogue first.

    Raises:
        UnsupportedError: a layer that no family can compute in any format.
    """
    while True:
        try:
            assignment = _Assignment(network, choice, num_workers)
            break
        except UnsupportedError:
            fused = [y for y in network.layers if y.epilogue and not _computable(y, choice)]
            if not fused:
                raise
            for layer in fused:
                split_epilogue(network, layer)
    assignment.improve()
    formats: dict[Tensor, TensorFormat] = {}
    for tensor in [*network.inputs, *(t for y in network.layers for t in y.outputs)]:
        formats[tensor] = assignment._written(tensor)
    for tensor in list(formats):
        for fmt in assignment.needed(tensor):
            readers = [
                layer
                for layer in assignment.consumers.get(tensor, [])
                if assignment._read(tensor, layer) is fmt
            ]
            formats[_insert_reformat(network, tensor, fmt, readers)] = fmt
    return formats


def _computable(layer: Layer, choice: FamilyChoice) -> bool:
    formats = (_LINEAR, choice.target.blocked_format)
    own = set(layer.own_inputs)
    for reads, writes in itertools.product(formats, formats):

        def layout_of(
            t: Tensor, reads: TensorFormat = reads, writes: TensorFormat = writes
        ) -> Layout:
            fmt = reads if t in own else writes
            return dense_layout(t.type, fmt if t.type.rank == 4 else _LINEAR)

        if choice.can_compute(layer_problem(layer, layout_of, 1)):
            return True
    return False


def _insert_reformat(
    network: Network, tensor: Tensor, fmt: TensorFormat, readers: list[Layer]
) -> Tensor:
    name = f"{tensor.name}.{fmt.name.lower()}"
    if tensor in network.outputs and fmt is _LINEAR:
        # the network output keeps its name; what the layer writes gets the derived one
        name, tensor.name = tensor.name, network.unique_name(f"{tensor.name}.blocked")
        copy = Tensor(name, tensor.type)
        network.outputs[network.outputs.index(tensor)] = copy
    else:
        copy = Tensor(network.unique_name(name), tensor.type)
    layer = Layer(
        "reformat", network.unique_name(f"reformat {copy.name}"), ReformatParams(fmt), [tensor]
    )
    layer.outputs.append(copy)
    copy.producer = layer
    for reader in readers:
        reader.inputs = [copy if t is tensor else t for t in reader.inputs]
    if readers:
        position = min(network.layers.index(reader) for reader in readers)
    else:
        position = len(network.layers)
    network.layers.insert(position, layer)
    return copy

"""If, Loop and Scan: a plan has a fixed list of steps, so branches are chosen and loops unrolled.

Conditions and trip counts must be known at build time; loop-carried values may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from builder_host.errors import NetworkError
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.values import Value
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.network import Tensor
from builder_host.network.tensor_type import TensorType

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
MAX_ITERATIONS = 4096

# Imports a subgraph with some values for its inputs; `name` is added to messages about its nodes.
ImportGraph = Callable[[onnx.GraphProto, Sequence[Value], str], list[Value | None]]


class _IncompleteError(Exception):
    """A body could not be translated; its own problems have been reported."""


@dataclass(frozen=True, slots=True)
class ControlFlow:
    """One control-flow node on its way into the network.

    Attributes:
        node: the node with its inputs; body graphs are read from its attributes.
        import_graph: translates a body.
    """

    node: Node
    import_graph: ImportGraph

    def translate(self) -> list[Value | None]:
        """Outputs of the node; empty when a body could not be translated."""
        try:
            match self.node.op_type:
                case "If":
                    return list(self._if())
                case "Loop":
                    return list(self._loop())
                case _ if self.node.version < 9:
                    return list(self._scan_of_batches())
                case _:
                    return list(self._scan())
        except _IncompleteError:
            return []

    # --- parts ---------------------------------------------------------------------------

    def _body(self, name: str) -> onnx.GraphProto:
        self.node.skip_attrs(name)
        attribute = self.node.attributes.get(name)
        if attribute is None or not attribute.HasField("g"):
            raise NetworkError(f"attribute '{name}' holds no graph")
        return attribute.g

    def _run(self, body: onnx.GraphProto, inputs: Sequence[Value], where: str) -> list[Value]:
        found = self.import_graph(body, inputs, where)
        if any(value is None for value in found):
            raise _IncompleteError
        return [value for value in found if value is not None]

    def _flag(self, value: Value | None, what: str) -> bool:
        """A single boolean that is known."""
        if not isinstance(value, Tensor) or value.values is None or value.values.size != 1:
            raise NetworkError(
                f"{what} must be one value known at build time; it depends on the network's "
                "inputs: export the wanted branch or a fixed number of iterations"
            )
        return bool(value.values.ravel()[0])

    # --- If ------------------------------------------------------------------------------

    def _if(self) -> list[Value]:
        is_true = self._flag(self.node.value(0), "the condition")
        self.node.skip_attrs("then_branch", "else_branch")
        return self._run(self._body("then_branch" if is_true else "else_branch"), [], "")

    # --- Loop ----------------------------------------------------------------------------

    def _loop(self) -> list[Value]:
        node, body = self.node, self._body("body")
        limit = None
        if node.optional(0) is not None:
            limit = node.constant_ints(0, "trip count")[0]
        is_conditional = node.optional(1) is not None
        goes_on = not is_conditional or self._flag(node.value(1), "the condition")
        carried = [self._required(number) for number in range(2, node.num_inputs)]
        scans: list[list[Tensor]] = [[] for _ in body.output[1 + len(carried) :]]
        count = 0
        while goes_on and (limit is None or count < limit):
            if count == MAX_ITERATIONS:
                raise NetworkError(f"the loop is longer than {MAX_ITERATIONS:,} iterations")
            inputs = [node.const(np.asarray(count, np.int64)), node.const(np.asarray(True))]
            results = self._run(body, [*inputs, *carried], f"iteration {count} > ")
            if is_conditional:
                goes_on = self._flag(results[0], f"the condition after iteration {count}")
            carried = results[1 : 1 + len(carried)]
            for scan, value in zip(scans, results[1 + len(carried) :], strict=True):
                scan.append(self._tensor(value))
            count += 1
        infos = body.output[1 + len(carried) :]
        stacked = [self._stacked(s, i, axis=0) for s, i in zip(scans, infos, strict=True)]
        return [*carried, *stacked]

    def _required(self, number: int) -> Value:
        value = self.node.value(number)
        if value is None:
            raise NetworkError(f"input {number} is missing; export the model again")
        return value

    def _tensor(self, value: Value) -> Tensor:
        if not isinstance(value, Tensor):
            raise NetworkError("a scan output must be a tensor in every iteration")
        return value

    def _stacked(self, items: Sequence[Tensor], info: onnx.ValueInfoProto, axis: int) -> Tensor:
        """Items side by side along a new axis."""
        if not items:
            return self.node.const(np.zeros(_empty_shape(info), np.float32))
        axis = self.node.axis(axis, items[0].type.rank + 1, "scan output axis")
        wide = [self.node.reshape(t, (*t.shape[:axis], 1, *t.shape[axis:])) for t in items]
        if len(wide) == 1:
            return wide[0]
        return self.node.add("concatenation", ConcatenationParams(axis), *wide)

    # --- Scan ----------------------------------------------------------------------------

    def _scan(self) -> list[Value]:
        values = [self.node.input(number) for number in range(self.node.num_inputs)]
        return list(self._scanned(values, "scan_input_directions"))

    def _scan_of_batches(self) -> list[Value]:
        """Opset 8: dimension 0 of everything is the batch, dimension 1 the sequence."""
        node = self.node
        if node.optional(0) is not None:
            lengths = set(node.constant_ints(0, "sequence lengths"))
            first_scan = node.input(node.num_inputs - 1)
            if lengths != {first_scan.shape[1]}:
                raise NetworkError(
                    f"sequence lengths {sorted(lengths)} differ from the extent "
                    f"{first_scan.shape[1]}; only full sequences are supported"
                )
        values = [node.input(number) for number in range(1, node.num_inputs)]
        batches = [
            self._scanned([self._item(v, b, axis=0) for v in values], "directions")
            for b in range(values[0].shape[0])
        ]
        infos = self._body("body").output
        return [
            self._stacked(items, info, axis=0)
            for items, info in zip(zip(*batches, strict=True), infos, strict=True)
        ]

    def _scanned(self, values: Sequence[Tensor], direction_name: str) -> list[Tensor]:
        node, body = self.node, self._body("body")
        count = node.attr_int("num_scan_inputs", 0)
        states: list[Value] = list(values[: len(values) - count])
        sources = values[len(values) - count :]
        num_outputs = len(body.output) - len(states)
        if not 0 < count <= len(values) or num_outputs < 0:
            raise NetworkError(f"num_scan_inputs {count} does not fit {len(values)} inputs")
        in_axes = self._per_scan("scan_input_axes", count)
        out_axes = self._per_scan("scan_output_axes", num_outputs)
        backwards = self._per_scan(direction_name, count)
        reversed_outputs = self._per_scan("scan_output_directions", num_outputs)
        axes = [node.axis(a, t.type.rank) for a, t in zip(in_axes, sources, strict=True)]
        lengths = {t.shape[a] for a, t in zip(axes, sources, strict=True)}
        if len(lengths) != 1 or max(lengths) > MAX_ITERATIONS:
            raise NetworkError(
                f"the scanned extents are {sorted(lengths)}; they must be equal and at most "
                f"{MAX_ITERATIONS:,}"
            )
        (length,) = lengths
        scans: list[list[Tensor]] = [[] for _ in range(num_outputs)]
        for step in range(length):
            items = [
                self._item(t, length - 1 - step if back else step, axis)
                for t, back, axis in zip(sources, backwards, axes, strict=True)
            ]
            results = self._run(body, [*states, *items], f"iteration {step} > ")
            states = results[: len(states)]
            for scan, value in zip(scans, results[len(states) :], strict=True):
                scan.append(self._tensor(value))
        outputs = [self._tensor(s) for s in states]
        infos = body.output[len(states) :]
        for scan, info, axis, back in zip(scans, infos, out_axes, reversed_outputs, strict=True):
            outputs.append(self._stacked(scan[::-1] if back else scan, info, axis))
        return outputs

    def _per_scan(self, name: str, count: int) -> tuple[int, ...]:
        values = self.node.attr_ints(name) or (0,) * count
        if len(values) != count:
            raise NetworkError(f"attribute '{name}' has {len(values)} values, {count} are needed")
        return values

    def _item(self, x: Tensor, place: int, axis: int) -> Tensor:
        """One slice along an axis, without the axis."""
        starts, sizes = [0] * x.type.rank, list(x.shape)
        starts[axis], sizes[axis] = place, 1
        part = self.node.slice(x, starts, sizes, [1] * x.type.rank)
        return self.node.reshape(part, (*x.shape[:axis], *x.shape[axis + 1 :]))


def _empty_shape(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = info.type.tensor_type.shape.dim
    if any(d.WhichOneof("value") != "dim_value" for d in dims):
        raise NetworkError(
            f"scan output '{info.name}' has no iteration, and its body states no static shape"
        )
    return TensorType((0, *(int(d.dim_value) for d in dims))).shape
